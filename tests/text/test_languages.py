"""Every language and script comes back as it was from the tokenizers of bytes, and none costs more than its bytes.

`python -m pytest -n 0 -s tests/text/test_languages.py -k language_takes` prints the table of docs/data.md.
"""

import unicodedata
from types import SimpleNamespace

import pytest

from lm.text import learn
from lm.text.tokenizer import bytes_per_token

KINDS = ("byte", "bpe:1500", "unigram:1500")

# The last of each is kept from what tokenizers learn from.
SENTENCES = {
    "English": [
        "The sun rises in the east and sets in the west.",
        "My sister reads a book every week.",
        "We drink water because we are thirsty.",
        "In the evening the children read a book by the window.",
    ],
    "German": [
        "Die Sonne geht im Osten auf und im Westen unter.",
        "Meine Schwester liest jede Woche ein Buch.",
        "Wir trinken Wasser, weil wir Durst haben; schöne Grüße!",
        "Am Abend lesen die Kinder am Fenster ein Buch.",
    ],
    "Vietnamese": [
        "Mặt trời mọc ở phía đông và lặn ở phía tây.",
        "Chị tôi đọc một quyển sách mỗi tuần.",
        "Chúng tôi uống nước vì chúng tôi khát.",
        "Buổi tối, trẻ em đọc một quyển sách bên cửa sổ.",
    ],
    "Greek": [
        "Ο ήλιος ανατέλλει στην ανατολή και δύει στη δύση.",
        "Η αδελφή μου διαβάζει ένα βιβλίο κάθε εβδομάδα.",
        "Πίνουμε νερό επειδή διψάμε.",
        "Το βράδυ τα παιδιά διαβάζουν ένα βιβλίο στο παράθυρο.",
    ],
    "Russian": [
        "Солнце встаёт на востоке и садится на западе.",
        "Моя сестра читает книгу каждую неделю.",
        "Мы пьём воду, потому что хотим пить.",
        "Вечером дети читают книгу у окна.",
    ],
    "Armenian": [
        "Արևը ծագում է արևելքում և մայր մտնում արևմուտքում։",
        "Քույրս ամեն շաբաթ գիրք է կարդում։",
        "Մենք ջուր ենք խմում, որովհետև ծարավ ենք։",
        "Երեկոյան երեխաները գիրք են կարդում։",
    ],
    "Georgian": [
        "მზე აღმოსავლეთით ამოდის და დასავლეთით ჩადის.",
        "ჩემი და ყოველ კვირა წიგნს კითხულობს.",
        "ჩვენ წყალს ვსვამთ, რადგან გვწყურია.",
        "საღამოს ბავშვები წიგნს კითხულობენ.",
    ],
    "Arabic": [
        "تشرق الشمس من الشرق وتغرب في الغرب.",
        "تقرأ أختي كتابًا كل أسبوع.",
        "نشرب الماء لأننا عطشى.",
        "في المساء يقرأ الأطفال كتابًا.",
    ],
    "Hebrew": [
        "השמש זורחת במזרח ושוקעת במערב.",
        "אחותי קוראת ספר כל שבוע.",
        "אנחנו שותים מים כי אנחנו צמאים.",
        "בערב הילדים קוראים ספר ליד החלון.",
    ],
    "Hindi": [
        "सूरज पूरब में उगता है और पश्चिम में डूबता है।",
        "मेरी बहन हर हफ़्ते एक किताब पढ़ती है।",
        "हम पानी पीते हैं क्योंकि हमें प्यास लगी है।",
        "शाम को बच्चे एक किताब पढ़ते हैं।",
    ],
    "Bengali": [
        "সূর্য পূর্ব দিকে ওঠে আর পশ্চিম দিকে ডোবে।",
        "আমার বোন প্রতি সপ্তাহে একটি বই পড়ে।",
        "আমরা জল খাই কারণ আমাদের তেষ্টা পেয়েছে।",
        "সন্ধ্যায় শিশুরা একটি বই পড়ে।",
    ],
    "Tamil": [
        "சூரியன் கிழக்கில் உதிக்கிறது, மேற்கில் மறைகிறது.",
        "என் அக்கா வாரம் ஒரு புத்தகம் படிக்கிறாள்.",
        "எங்களுக்குத் தாகம் என்பதால் தண்ணீர் குடிக்கிறோம்.",
        "மாலையில் குழந்தைகள் ஒரு புத்தகம் படிக்கிறார்கள்.",
    ],
    "Thai": [
        "ดวงอาทิตย์ขึ้นทางทิศตะวันออกและตกทางทิศตะวันตก",
        "พี่สาวของฉันอ่านหนังสือทุกสัปดาห์",
        "เราดื่มน้ำเพราะเรากระหายน้ำ",
        "ตอนเย็นเด็ก ๆ อ่านหนังสือที่หน้าต่าง",
    ],
    "Amharic": [
        "ፀሐይ በምሥራቅ ትወጣለች በምዕራብም ትጠልቃለች።",
        "እህቴ በየሳምንቱ መጽሐፍ ታነባለች።",
        "ስለጠማን ውሃ እንጠጣለን።",
        "ማታ ልጆች መጽሐፍ ያነባሉ።",
    ],
    "Korean": [
        "해는 동쪽에서 뜨고 서쪽으로 진다.",
        "누나는 매주 책을 한 권 읽는다.",
        "우리는 목이 말라서 물을 마신다.",
        "저녁에 아이들은 창가에서 책을 읽는다.",
    ],
    "Japanese": [
        "太陽は東から昇り、西に沈む。",
        "姉は毎週一冊の本を読みます。",
        "のどが渇いたので、水を飲みます。",
        "夕方、子供たちはマドのそばで本を読みます。",
    ],
    "Chinese": [
        "太阳从东方升起，在西方落下。",
        "我的姐姐每个星期读一本书。",
        "我们喝水，因为我们口渴。",
        "晚上孩子们在窗边读一本书。",
    ],
    "emoji": [
        "👩‍👩‍👧‍👦 ❤️ 🏳️‍🌈",
        "👍🏽 👍🏿 👋🏻 ❤️",
        "🇯🇵 🇪🇹 🇬🇪 1️⃣ 👩‍👩‍👧‍👦",
        "👩🏽‍🚀 👍🏽 ❤️ 🇬🇪",
    ],
}


LEARNED_FROM = {
    "all": [text for texts in SENTENCES.values() for text in texts[:-1]],
    "English": SENTENCES["English"][:-1],
}


@pytest.fixture(scope="module")
def learned():
    """Return a function: kind, and what it has learned from → the tokenizer, learned once."""
    made = {}

    def make(kind, texts):
        if (kind, texts) not in made:
            section = SimpleNamespace(tokenizer=kind, normalization="none", end_token="", mask_token="", sentinels=0)
            made[kind, texts] = learn.learn(section, LEARNED_FROM[texts])
        return made[kind, texts]

    return make


def test_there_are_many_scripts():
    letters = {letter for texts in SENTENCES.values() for text in texts for letter in text}
    scripts = {unicodedata.name(letter).split()[0] for letter in letters if unicodedata.category(letter)[0] == "L"}
    assert {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI"} < scripts
    assert {"TAMIL", "THAI", "ETHIOPIC", "HANGUL", "HIRAGANA", "KATAKANA", "CJK"} < scripts
    assert {"\u200d", "\ufe0f", "\U0001f3fd", "\U0001f1ea"} < letters  # joined and coloured emoji, flags


@pytest.mark.parametrize("texts", LEARNED_FROM)
@pytest.mark.parametrize("kind", KINDS)
def test_every_sentence_comes_back(learned, kind, texts):
    ours = learned(kind, texts)
    for language, sentences in SENTENCES.items():
        for text in (*sentences, "\n".join(sentences), " ".join(sentences)[::-1], f"  {sentences[0]}\t"):
            assert ours.decode(ours.encode(text)) == text, language
            assert ours.end not in ours.encode(text)


@pytest.mark.parametrize("form", ["nfc", "nfd", "nfkc", "nfkd"])
def test_every_sentence_comes_back_in_its_normal_form(form):
    section = SimpleNamespace(tokenizer="byte", normalization=form, end_token="", mask_token="", sentinels=0)
    ours = learn.learn(section, [])
    for sentences in SENTENCES.values():
        for text in sentences:
            assert ours.decode(ours.encode(text)) == unicodedata.normalize(form.upper(), text)


def test_no_language_takes_more_tokens_than_bytes_and_those_learned_take_fewer(learned):
    columns = [(kind, texts) for kind in KINDS for texts in LEARNED_FROM]
    print("\n| language |" + "".join(f" {kind}, {texts} |" for kind, texts in columns))
    for language, sentences in SENTENCES.items():
        found = {column: bytes_per_token(learned(*column), sentences[-1:]) for column in columns}
        print(f"| {language} |" + "".join(f" {found[column]:.2f} |" for column in columns))
        assert found["byte", "all"] == found["byte", "English"] == 1
        assert found["bpe:1500", "all"] > 1.5 and found["unigram:1500", "all"] > 1.1
        assert found["bpe:1500", "English"] >= 1 and found["unigram:1500", "English"] >= 1
        if language != "English":
            assert found["bpe:1500", "all"] > 1.2 * found["bpe:1500", "English"]
