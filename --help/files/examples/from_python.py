"""Use a project from Python: run it, look into its knowledge base, recognise and find files.

python examples/from_python.py unibind.toml photo.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline import Project


def main(project_file: Path, photo: Path) -> None:
    project = Project.open(project_file)
    project.run()  # finished stages are recognised and skipped

    # SQL over the knowledge base's views; .rows(), .arrow() and .df() give what is printed here.
    print(project.kb.sql("SELECT kind, status, count(*) AS texts FROM v_descriptions GROUP BY ALL"))

    # Models stay loaded: the second call and all later ones answer at once.
    for prediction in project.predict(photo, top=3):
        for answer in prediction.answers:
            print(f"{answer.score:.2f}  {answer.category}: {answer.why}")
    print(project.retrieve(photo, into="text", k=3))
    print(project.retrieve("a red cup on a table", k=3))

    # Vectors as NumPy arrays of unit rows: the product of two is their cosine.
    _, photos_ND = project.vectors("image", space="aligned")
    _, texts_MD = project.vectors("category_texts")
    print(f"photos {photos_ND.shape}, texts {texts_MD.shape}, mean cosine {(photos_ND @ texts_MD.T).mean()}")

    print(project.metrics)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
