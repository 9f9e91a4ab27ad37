"""Tiny trees, each in exactly the layout in which its benchmark is published, with real media in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
from PIL import Image

SYNSETS = ("n01440764", "n02105855", "n03126707")  # tench, Shetland sheepdog, crane (machine)


def picture(path: Path, seed: int, *, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> None:
    """A noisy picture of one colour."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(40, 216, 3)
    pixels = np.clip(colour + rng.normal(0, 12, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending .JPEG of ImageNet is JPEG's, whatever its case.
    Image.fromarray(pixels).convert(mode).save(path, format="PNG" if path.suffix == ".png" else "JPEG")


def sound(path: Path, seed: int) -> None:
    """Half a second of one tone at 16 kHz."""
    t = np.arange(8000) / 16000
    wave = 0.3 * np.sin(2 * np.pi * (200 + 150 * seed) * t)
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, wave + np.random.default_rng(seed).normal(0, 0.01, len(t)), 16000)


def film(path: Path, seed: int) -> None:
    """Eight small pictures, as MPEG-4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    colour = rng.integers(40, 216, 3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(8):
            pixels = np.clip(colour + rng.normal(0, 8, (48, 64, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def mesh(path: Path, seed: int) -> None:
    """A box, as OFF or OBJ."""
    a, b, c = 1.0, 1.0 + seed % 5, 0.5
    corners = [(x * a, y * b, z * c) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".off":
        lines = ["OFF", "8 6 0", *(" ".join(map(str, p)) for p in corners)]
        lines += ["4 " + " ".join(map(str, f)) for f in faces]
    else:
        lines = [f"v {x} {y} {z}" for x, y, z in corners]
        lines += ["f " + " ".join(str(i + 1) for i in f) for f in faces]
    path.write_text("\n".join(lines) + "\n")


def cloud_text(path: Path, seed: int, *, between: str) -> None:
    """Points x y z with normals, as text."""
    rng = np.random.default_rng(seed)
    rows = np.hstack([rng.normal(size=(64, 3)) * (1, 1 + seed % 4, 1), rng.normal(size=(64, 3))])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(between.join(f"{x:.6f}" for x in row) for row in rows) + "\n")


def cloud_array(path: Path, seed: int) -> None:
    """Points x y z, as NumPy's own file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(seed).normal(size=(64, 3)).astype(np.float32) * (1, 1 + seed % 4, 1))


def _events(seed: int, width: int, height: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = rng.integers(10, width // 2 + seed % 5, 500)
    return (
        x,
        rng.integers(10, height // 2, 500),
        np.sort(rng.integers(0, 90_000, 500)),
        rng.integers(0, 2, 500),
    )


def events_bin(path: Path, seed: int) -> None:
    """Five bytes an event: x, y, one bit of polarity, 23 of microseconds."""
    x, y, t, p = _events(seed, 200, 160)
    raw = np.stack([x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255], axis=1).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw.tofile(path)


def events_npz(path: Path, seed: int) -> None:
    """`event_data` with the fields x, y, t, p."""
    x, y, t, p = _events(seed, 640, 480)
    data = np.zeros(len(x), dtype=[("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "u1")])
    data["x"], data["y"], data["t"], data["p"] = x, y, t, p
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, event_data=data)


def table(path: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)


def lines(path: Path, texts: Iterable[str]) -> None:
    """A text file, one entry a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def imagenet(root: Path) -> None:
    """val and train in class folders."""
    for c, synset in enumerate(SYNSETS):
        for i in range(2):
            picture(root / f"val/{synset}/ILSVRC2012_val_{10 * c + i + 1:08d}.JPEG", 10 * c + i)
        for i in range(4):
            picture(root / f"train/{synset}/{synset}_{i}.JPEG", 100 + 10 * c + i)


def imagenet_kaggle(root: Path) -> None:
    """ILSVRC/Data/CLS-LOC/val flat, and LOC_val_solution.csv."""
    rows = []
    for c, synset in enumerate(SYNSETS):
        name = f"ILSVRC2012_val_{c + 1:08d}"
        picture(root / f"ILSVRC/Data/CLS-LOC/val/{name}.JPEG", c)
        rows.append((name, f"{synset} 1 2 3 4 {synset} 5 6 7 8"))
    table(root / "LOC_val_solution.csv", "ImageId,PredictionString", rows)


def places365(root: Path) -> None:
    """The easyformat."""
    for c, scene in enumerate(("airfield", "church-indoor", "church-outdoor")):
        for i in range(2):
            picture(root / f"val/{scene}/Places365_val_{10 * c + i:08d}.jpg", 10 * c + i)
        for i in range(3):
            picture(root / f"train/{scene}/{i:08d}.jpg", 100 + 10 * c + i)


def places365_lists(root: Path) -> None:
    """Flat val pictures, train pictures by letter, and the official lists."""
    scenes = ("/a/airfield", "/c/church/indoor", "/c/church/outdoor")
    lines(root / "categories_places365.txt", (f"{scene} {c}" for c, scene in enumerate(scenes)))
    val = [(f"Places365_val_{i:08d}.jpg", i % 3) for i in range(6)]
    train = [(f"{scene}/{i:08d}.jpg", c) for c, scene in enumerate(scenes) for i in range(3)]
    for seed, (name, _) in enumerate(val):
        picture(root / "val_256" / name, seed)
    for seed, (name, _) in enumerate(train):
        picture(root / f"data_256_standard{name}", 100 + seed)
    lines(root / "places365_val.txt", (f"{name} {c}" for name, c in val))
    lines(root / "places365_train_standard.txt", (f"{name} {c}" for name, c in train))


def modelnet40(root: Path) -> None:
    """OFF meshes."""
    for c, name in enumerate(("airplane", "night_stand", "xbox")):
        for i in range(4):
            mesh(root / f"{name}/train/{name}_{i:04d}.off", 3 * c + i)
        for i in range(4, 6):
            mesh(root / f"{name}/test/{name}_{i:04d}.off", 3 * c + i)


def modelnet40_resampled(root: Path) -> None:
    """Text clouds with lists."""
    train, test = [], []
    for c, name in enumerate(("airplane", "night_stand", "xbox")):
        for i in range(1, 7):
            model = f"{name}_{i:04d}"
            cloud_text(root / f"{name}/{model}.txt", 7 * c + i, between=",")
            (train if i < 5 else test).append(model)
    lines(root / "modelnet40_train.txt", train)
    lines(root / "modelnet40_test.txt", test)
    lines(root / "modelnet40_shape_names.txt", ("airplane", "night_stand", "xbox"))


def shapenet(root: Path) -> None:
    """Point-BERT's ShapeNet-55."""
    for split, count in (("train", 4), ("test", 2)):
        names = [f"{s}-{split}{i}.npy" for s in ("02691156", "03001627", "04379243") for i in range(count)]
        for seed, name in enumerate(names):
            cloud_array(root / "shapenet_pc" / name, seed)
        lines(root / f"ShapeNet-55/{split}.txt", names)


def shapenet_part(root: Path) -> None:
    """ShapeNet-part with normals."""
    classes = {"Airplane": "02691156", "Chair": "03001627", "Table": "04379243"}
    lines(root / "synsetoffset2category.txt", (f"{name}\t{synset}" for name, synset in classes.items()))
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        models = [f"{synset}/{split}{i}" for synset in classes.values() for i in range(count)]
        for seed, model in enumerate(models):
            cloud_text(root / f"{model}.txt", seed, between=" ")
        listed = root / f"train_test_split/shuffled_{split}_file_list.json"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text(json.dumps([f"shape_data/{model}" for model in models]))


def shapenet_core(root: Path) -> None:
    """ShapeNetCore version 2 with the official split."""
    rows = []
    for c, synset in enumerate(("02691156", "03001627", "04379243")):
        for i, split in enumerate(("train", "train", "train", "val", "test")):
            mesh(root / f"{synset}/m{c}{i}/models/model_normalized.obj", c + i)
            rows.append((5 * c + i, synset, synset, f"m{c}{i}", split))
    table(root / "all.csv", "id,synsetId,subSynsetId,modelId,split", rows)


def esc50(root: Path) -> None:
    """Wav files and the list, in five folds; two clips are cut from each recording."""
    rows = []
    for c, name in enumerate(("dog", "church_bells", "rain")):
        for fold in range(1, 6):
            for take in "AB":
                file = f"{fold}-{1000 + 10 * c + fold}-{take}-{c}.wav"
                sound(root / "audio" / file, 6 * c + fold % 2)
                rows.append((file, fold, c, name, "False", 1000 + 10 * c + fold, take))
    table(root / "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take", rows)


def urbansound8k(root: Path) -> None:
    """Ten folds; two slices are cut from each recording."""
    rows = []
    for c, name in enumerate(("air_conditioner", "car_horn", "siren")):
        for fold in range(1, 11):
            fs = 7000 + 20 * c + fold
            for take in range(2):
                file = f"{fs}-{c}-0-{take}.wav"
                sound(root / f"audio/fold{fold}/{file}", 6 * c + fold % 2)
                rows.append((file, fs, 0.0, 4.0, 1, fold, c, name))
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    table(root / "metadata/UrbanSound8K.csv", header, rows)


VOC = """<annotation><folder>test</folder><filename>{name}.jpg</filename>
<size><width>160</width><height>128</height><depth>3</depth></size>{objects}</annotation>"""
OBJECT = """<object><name>person</name><pose>Unspecified</pose><difficult>0</difficult><bndbox>
<xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def llvip(root: Path) -> None:
    """Thermal pictures and their annotations."""
    for split, first, count in (("test", 190001, 3), ("train", 10001, 5)):
        for i in range(count):
            name = f"{first + i:06d}"
            picture(root / f"infrared/{split}/{name}.jpg", first + i, size=(160, 128))
            boxes = [(10 + i, 20, 34 + i, 80), (90, 30 + i, 112, 90 + i)]
            path = root / f"Annotations/{name}.xml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(VOC.format(name=name, objects="".join(OBJECT.format(*box) for box in boxes)))


def rgbt(root: Path) -> None:
    """Class folders of thermal pictures."""
    for split, count in (("train", 4), ("test", 2)):
        for c, name in enumerate(("person", "car")):
            for i in range(count):
                picture(root / f"{split}/{name}/{i}.jpg", 10 * c + i + count, mode="L")


def msrvtt(root: Path) -> None:
    """The full split, and the lists of 1k-A."""
    videos = []
    splits = ("train", "train", "train", "validate", "test", "test")
    for c, category in enumerate((0, 7, 9)):
        for i, split in enumerate(splits):
            name = f"video{6 * c + i}"
            film(root / f"videos/all/{name}.mp4", 20 * c + i)
            videos.append({"id": 6 * c + i, "video_id": name, "category": category, "split": split})
    content = {"info": {}, "videos": videos, "sentences": []}
    (root / "MSRVTT_data.json").write_text(json.dumps(content))
    test = [video["video_id"] for video in videos if video["id"] % 3 == 2]
    table(
        root / "MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence", [("r", "m", v, "a") for v in test]
    )
    train = [(video["video_id"],) for video in videos if video["id"] % 3 != 2]
    table(root / "MSRVTT_train.9k.csv", "video_id", train)


def ucf101(root: Path) -> None:
    """Class folders of AVI films and three splits by group."""
    classes = ("ApplyEyeMakeup", "Biking", "YoYo")
    lines(root / "ucfTrainTestlist/classInd.txt", (f"{c} {name}" for c, name in enumerate(classes, start=1)))
    clips = {}
    for c, name in enumerate(classes, start=1):
        for group in range(1, 5):
            clip = f"{name}/v_{name}_g{group:02d}_c01.avi"
            film(root / "UCF-101" / clip, 20 * c + group)
            clips[clip] = (group, c)
    for split in range(1, 4):
        train = [f"{clip} {c}" for clip, (group, c) in clips.items() if group != split]
        lines(root / f"ucfTrainTestlist/trainlist{split:02d}.txt", train)
        test = [clip for clip, (group, _) in clips.items() if group == split]
        lines(root / f"ucfTrainTestlist/testlist{split:02d}.txt", test)


def ncaltech101(root: Path) -> None:
    """Class folders of event files."""
    for c, name in enumerate(("Faces_easy", "ant", "water_lilly")):
        for i in range(1, 11):
            events_bin(root / f"Caltech101/{name}/image_{i:04d}.bin", 30 * c + i)


def nimagenet(root: Path) -> None:
    """extracted_val and extracted_train."""
    for c, synset in enumerate(SYNSETS):
        for i in range(2):
            events_npz(root / f"extracted_val/{synset}/ILSVRC2012_val_{10 * c + i:08d}.npz", 10 * c + i)
        for i in range(4):
            events_npz(root / f"extracted_train/{synset}/{synset}_{i}.npz", 100 + 10 * c + i)


TREES: dict[str, Callable[[Path], None]] = {
    "imagenet-1k": imagenet,
    "imagenet-1k/kaggle": imagenet_kaggle,
    "places365": places365,
    "places365/lists": places365_lists,
    "modelnet40": modelnet40,
    "modelnet40/resampled": modelnet40_resampled,
    "shapenet": shapenet,
    "shapenet/part16": shapenet_part,
    "shapenet/core55": shapenet_core,
    "esc-50": esc50,
    "urbansound8k": urbansound8k,
    "llvip": llvip,
    "rgb-t": rgbt,
    "msr-vtt": msrvtt,
    "ucf-101": ucf101,
    "n-caltech101": ncaltech101,
    "n-imagenet": nimagenet,
}


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("tree")
            TREES[name](made[name])
        return made[name]

    return make


@pytest.fixture
def tree(_made: Callable[[str], Path]) -> Callable[[str], Path]:
    """A benchmark's tree, by name and form, made once for all tests: it must not be changed."""
    return _made


@pytest.fixture
def own_tree(tmp_path: Path) -> Callable[[str], Path]:
    """A tree of the test's own, to damage."""

    def make(name: str) -> Path:
        root = tmp_path / "tree"
        TREES[name](root)
        return root

    return make


@pytest.fixture(scope="session")
def media() -> dict[str, Callable[..., None]]:
    """The writers of single files."""
    return {"picture": picture, "cloud_text": cloud_text, "film": film, "lines": lines}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model with random weights, as a user has it on the disk: letters are its words."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config=tower | ids | {"vocab_size": len(words), "max_position_embeddings": 512},
        vision_config=tower | {"image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    vocabulary = {word: n for n, word in enumerate(words)}
    CLIPTokenizerFast(vocab=vocabulary, merges=[], model_max_length=512).save_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return folder
