"""Is a short text English?"""

from __future__ import annotations

import pytest

from kb_builder.gates.language import foreign_reason

ENGLISH = """
The dog has a wet black nose and floppy ears that swing when it runs.
A red fox trots over fresh snow with its bushy tail held low.
When struck, the church bells ring with a deep, slow, humming tone.
In a thermal picture, the kettle glows white while the table stays dark.
Seen from the side, the cone narrows evenly from a round base to a point.
Bright red plastic cube, rounded corners, matte finish.
Glossy black grand piano, lid open, gold lettering, three brass pedals.
Long-legged wading bird, grey back, white neck, dagger-like yellow bill.
Thermal image: warm engine block, cool windscreen, hot exhaust pipe.
Café tables with a crème brûlée and a piñata look festive.
A jalapeño pepper is a glossy green pod the length of a thumb.
The façade of the château shows pale stone and slate-blue roofs.
An event camera sees only the moving outline of the fan blades.
Its bark is short, sharp and repeated, unlike a wolf's long howl.
Des Moines city hall stands beside the river.
The die is a small white cube with black pips.
The rubber cube is soft and it's light.
The wooden sphere rolls over the floor with a dull rumble.
The cello sings in a warm, low, woody voice when bowed.
A taxi cab idles at the kerb, exhaust steaming in cold air.
Three men carry an old sofa up a narrow stair.
Steel torus: cold ring, polished, heavy.
Zebra stripes flicker as the herd gallops past.
People use the ambulance to take the injured to a hospital.
The dachshund trots on short legs with its long body swaying.
The sushi roll shows rice around a core of salmon.
""".strip().splitlines()

OTHERS = {
    "German": """
Der Hund hat eine nasse schwarze Nase und hängende Ohren.
Ein roter Fuchs trabt mit buschigem Schwanz durch frischen Schnee.
Im Wärmebild leuchtet der Kessel hell, der Tisch bleibt dunkel.
Die Kirchenglocken klingen tief und lange nach.
Das Auto ist rot und klein.
Beim Rollen klingt die Kugel dumpf auf dem Boden.
Von der Seite gesehen, wird der Kegel nach oben schmaler.
Ein kleiner Vogel sitzt auf dem Ast.
""",
    "French": """
Le chien a un museau noir et humide et de longues oreilles.
Un renard roux traverse la neige fraîche, la queue basse.
La cloche sonne avec un ton grave et lent.
Sur une image thermique, la bouilloire brille et la table reste sombre.
Le cube rouge est petit et lisse.
Vu de loin, le camion ressemble à une grande boîte blanche.
C'est un oiseau gris avec un long bec jaune.
""",
    "Spanish": """
El perro tiene una nariz negra y húmeda y orejas largas.
Un zorro rojo corre por la nieve fresca con la cola baja.
La campana suena con un tono grave y lento.
En una imagen térmica, la tetera brilla y la mesa queda oscura.
El cubo rojo es pequeño y liso.
Desde lejos, el camión parece una gran caja blanca.
Las ruedas son negras y grandes.
""",
    "Italian": """
Il cane ha un naso nero e umido e orecchie lunghe.
Una volpe rossa attraversa la neve fresca con la coda bassa.
La campana suona con un tono grave e lento.
Visto di lato, il cono si restringe verso la punta.
Il cubo rosso è piccolo e liso.
Da lontano il camion sembra una grande scatola bianca.
""",
    "Portuguese": """
O cachorro tem um focinho preto e molhado e orelhas longas.
Uma raposa vermelha corre pela neve com a cauda baixa.
O sino soa com um tom grave e lento.
De longe, o caminhão parece uma grande caixa branca.
O cubo vermelho é pequeno e liso.
As rodas são pretas e grandes.
""",
    "Dutch": """
De hond heeft een natte zwarte neus en hangende oren.
Een rode vos loopt met lage staart door de verse sneeuw.
De kerkklokken klinken diep en lang na.
Het kubusje is klein en rood met ronde hoeken.
Van opzij gezien wordt de kegel naar boven smaller.
De wielen van de auto zijn zwart.
""",
    "Polish": """
Pies ma mokry czarny nos i długie uszy.
Rudy lis biegnie przez świeży śnieg z opuszczonym ogonem.
Dzwon brzmi głęboko i powoli.
Czerwona kostka jest mała i gładka.
Z daleka ciężarówka wygląda jak duże białe pudło.
Koła samochodu są czarne.
""",
    "Turkish": """
Köpeğin ıslak siyah bir burnu ve uzun kulakları var.
Kızıl tilki taze karda alçak kuyruğuyla koşar.
Kilise çanı derin ve yavaş bir sesle çalar.
Kırmızı küp küçük ve pürüzsüzdür.
Uzaktan kamyon büyük beyaz bir kutu gibi görünür.
Arabanın tekerlekleri siyah ve büyük.
""",
    "others": """
Hunden har en våt svart nos och långa öron.
Hunden har en våd sort snude og lange ører.
Koiralla on märkä musta kuono ja pitkät korvat.
Pes má mokrý černý čumák a dlouhé uši.
A kutyának nedves fekete orra és hosszú füle van.
Câinele are un nas negru și umed și urechi lungi.
Anjing itu memiliki hidung hitam yang basah dan telinga panjang.
Con chó có mũi đen ướt và tai dài.
狗有一个湿润的黑鼻子和长长的耳朵。
犬は黒く湿った鼻と長い耳を持っている。
개는 젖은 검은 코와 긴 귀를 가지고 있다.
У собаки мокрый чёрный нос и длинные уши.
للكلب أنف أسود مبلل وأذنان طويلتان.
Ο σκύλος έχει υγρή μαύρη μύτη και μακριά αυτιά.
לכלב יש אף שחור ורטוב ואוזניים ארוכות.
कुत्ते की नाक काली और गीली होती है।
สุนัขมีจมูกสีดำเปียกและหูยาว
""",
}
FOREIGN = [line for text in OTHERS.values() for line in text.strip().splitlines()]


@pytest.mark.parametrize("text", ENGLISH)
def test_english_stays(text: str) -> None:
    """Sentences, captions without a verb, borrowed words with accents, short ones."""
    assert foreign_reason(text) is None


@pytest.mark.parametrize("text", FOREIGN)
def test_other_languages_are_told(text: str) -> None:
    """By their letters, or by more function words of theirs than of English."""
    assert foreign_reason(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("狗有一个湿润的黑鼻子。", "written in Cjk letters"),
        ("The кот собака медведь волк", "written in Cyrillic letters"),
        ("Das Auto ist rot und klein.", "reads as German: 3 of 6 words"),
    ],
)
def test_the_reason_is_told(text: str, reason: str) -> None:
    """Which script, or which language and on how many words."""
    assert foreign_reason(text) == reason


def test_a_name_says_nothing_about_the_language() -> None:
    """A category's own name may come from anywhere."""
    text = "The 犬 sits still."
    assert foreign_reason("犬 柴犬 秋田犬 sits.") is not None
    assert foreign_reason(text, ignored={"犬"}) is None


def test_nothing_is_no_foreign_language() -> None:
    """Empty texts, digits and signs."""
    for text in ("", "42", "… — !", "3 × 4"):
        assert foreign_reason(text) is None
