"""The data section: its fields."""

from lm.config.field import A_FOLDER, A_NAME, ANY_TEXT, EITHER, FREE, Field, at_least, one_of, spelled, within

_SIZE = r"(25[89]|2[6-9]\d|[3-9]\d\d|[1-9]\d{3,6})"

FIELDS = {
    "data.source": Field(
        "embedded:code",
        "text to learn from",
        spelled(
            r"embedded(:(prose|code))?|files:.+|tfds:\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?",
            **{
                "embedded": "Python's own standard library, read in place; or a half of it:",
                "embedded:prose": "its docstrings, comments and help topics",
                "embedded:code": "its source code",
                "files:GLOB": "a record per .txt, per line of a .jsonl, .gz of both, per row of a .parquet",
                "tfds:NAME[/CONFIG][:VERSION]": "a set of TensorFlow Datasets, prepared as array_record in data.folder",
            },
        ),
    ),
    "data.text_field": Field(
        "text", "the field of a .jsonl line, column of a .parquet or feature of a tfds: set that holds its text", A_NAME
    ),
    "data.folder": Field("~/tensorflow_datasets", "folder of the prepared sets of tfds:", A_FOLDER, FREE),
    "data.normalization": Field(
        "none",
        "form of Unicode that text is brought to, prompts too (Unicode Standard Annex 15)",
        one_of(
            none="as it is",
            nfc="characters composed",
            nfd="characters decomposed",
            nfkc="composed, and letters that are only written differently made one: ﬁ becomes fi",
            nfkd="decomposed, likewise",
        ),
    ),
    "data.tokenizer": Field(
        "bpe:4096",
        "what text is cut into; learned from the training split, or read from a file",
        spelled(
            rf"byte|char|(bpe|unigram|wordpiece):{_SIZE}|(file|sentencepiece):.+",
            "byte, char, bpe:SIZE, unigram:SIZE or wordpiece:SIZE with SIZE of at least 258, "
            "file:PATH or sentencepiece:PATH",
            **{
                "byte": "the bytes of UTF-8",
                "char": "the characters of the training split",
                "bpe:SIZE": "byte pairs, merged by frequency up to SIZE tokens (Sennrich et al. 2016), as GPT-2's",
                "unigram:SIZE": "the likeliest of all ways to cut bytes into SIZE tokens (Kudo 2018)",
                "wordpiece:SIZE": "parts of words as BERT's (Schuster and Nakajima 2012); loses white space and "
                "what it has not seen",
                "file:PATH": "a tokenizer.json of the tokenizers library",
                "sentencepiece:PATH": "a .model of SentencePiece, unigram or bpe",
            },
        ),
    ),
    "data.end_token": Field(
        "",
        "spelling of the end-of-text token; empty: <|endoftext|>, or what a tokenizer's file has in its place",
        ANY_TEXT,
    ),
    "data.batch_size": Field(16, "sequences in a step, over all devices", at_least(1)),
    "data.valid_fraction": Field(0.05, "share of the text held out for validation", within(0.0001, 0.5)),
    "data.cross_records": Field(False, "let attention look into the records before in the same window", EITHER),
    "data.store": Field("~/.cache/lm/store", "folder of the token stores", A_FOLDER, FREE),
}
