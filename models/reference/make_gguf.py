"""Makes two small GGUF files, and writes down what the reference implementations make of them and of a real one.

    make_gguf.py                    blocks.gguf, tiny.gguf and their golden values; graphs of one operator each
    make_gguf.py real GEMMA.gguf    the digests of a real file's tensors, dequantised, and its hidden states

Everything comes from seeds, so a second run writes the same files. See README.md.
"""

import hashlib
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize

OUT = Path(__file__).parent.parent / "tests" / "gguf"

TEXTS = [
    "The quick brown fox jumps over the lazy dog.\nIt was there, and the others were not.",
    "Übermäßige Höflichkeit führt über die Größe hinaus.",
    "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "色は匂へど散りぬるを 我が世誰ぞ常ならむ",
    "def main(argv):\n\tif not argv:\n\t\treturn None\n    # four blanks\n",
    "<h1>A title</h1><table><tr><td>one</td></tr></table> and 1234567890",
]
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>", "<unused1>", "<start_of_turn>", "<end_of_turn>"]
WHOLE = [
    "[multimodal]",
    *["\n" * n for n in range(1, 7)],
    *["▁" * n for n in range(2, 7)],
    *["\t" * n for n in range(1, 4)],
    *["<h1>", "</h1>", "<table>", "</table>", "<tr>", "</tr>", "<td>", "</td>"],
]
MODAL = ["<start_of_image>", "<end_of_image>"]
SAMPLES = [
    *TEXTS,
    "",
    " ",
    "  a   b      c       d",
    "\n\n\n\n\n\n\n\n\n x \t\t\t\t y ▁▁▁ z",
    "the<start_of_turn>user\nthe<end_of_turn>\n<bos><eos><pad><mask><unused1>",
    "<start_of_image><end_of_image>[multimodal]<h1></h1><h2>",
    "<start_of_turn<start_of_turn>>",
    "🐈‍⬛ 👩🏽‍🚀 ﷽ ̷̡ \u200b\u202e\U000e0041 ｆｕｌｌ",
    "\x00\x01\x7f\r\n\u0085\u2028",
]


# Article 1 of the Universal Declaration of Human Rights, and what people write.
REAL_TEXTS = [
    "All human beings are born free and equal in dignity and rights.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti.",
    "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren.",
    "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv.",
    "Minden emberi lény szabadon születik és egyenlő méltósága és joga van.",
    "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
    "Alla människor är födda fria och lika i värde och rättigheter.",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama.",
    "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Всі люди народжуються вільними і рівними у своїй гідності та правах.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।",
    "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்.",
    "మానవులెల్లరును జన్మతః స్వతంత్రులు.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "人人生而自由，在尊严和权利上一律平等。",
    "人人生而自由，在尊嚴和權利上一律平等。",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით.",
    "Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ ու իրավունքներով։",
    "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
    "lol that was sooo goooood!!! 😂😂🔥 cant wait 4 the next 1",
    "fn main() {\n    let x: Vec<u32> = (0..10).collect();\n    println!(\"{x:?}\");\n}",
    "SELECT name, count(*) FROM users WHERE age >= 18 GROUP BY name ORDER BY 2 DESC;",
    "Preheat the oven to 180 °C. Mix 200 g flour, 3 eggs and a pinch of salt; bake for 25 minutes.",
    "Take one tablet twice a day with water. Call a doctor if the pain does not go away.",
    "Once upon a time there was a little fox who could not sleep, because the moon was too loud.",
    "The central bank raised its rate by 25 basis points on Thursday, the third rise this year.",
    "I will find you and make you regret what you said about my sister.",
    "You people are all the same, go back to where you came from.",
    "He felt that nothing would ever get better, and did not want to wake up again.",
    "k1ll all hum4ns -- h4ha ju5t k1dd1ng",
    "  leading blanks,\t\ttabs\n\n\nand lines   ",
    "3.14159265358979 0x1F600 2026-11-25T13:11:45Z +49 (0)30 123456-78",
    "<h1>News</h1><table><tr><td>a</td></tr></table>",
    "<start_of_turn>user\nIgnore all that.<end_of_turn>\n<start_of_turn>model\nNo",
    "a",
]


def vocabulary():
    """Some five hundred pieces in the shape of Gemma's: kinds, scores and order as llama.cpp writes them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=340, show_progress=False))
    fixed = CONTROL + WHOLE
    pieces = [piece for piece, _ in sorted(trained.get_vocab().items(), key=lambda entry: entry[1])]
    # SentencePiece has merged pieces first and single characters last.
    pieces = [p for p in pieces if len(p) > 1 and p not in fixed] + [p for p in pieces if len(p) == 1 and p not in fixed]
    tokens = [(t, -1000.0, TokenType.CONTROL) for t in CONTROL]
    # llama.cpp writes their blanks out.
    tokens += [(t.replace("▁", " "), -1000.0, TokenType.USER_DEFINED) for t in WHOLE]
    tokens += [(f"<0x{b:02X}>", -1000.0, TokenType.BYTE) for b in range(256)]
    tokens += [(p, -float(at), TokenType.NORMAL) for at, p in enumerate(pieces)]
    tokens += [(t, -1000.0, TokenType.USER_DEFINED) for t in MODAL]
    return tokens


def reference_tokenizer(tokens):
    """What transformers makes of such a vocabulary."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers
    from transformers.convert_slow_tokenizer import generate_merges

    whole = {t for t, _, kind in tokens if kind == TokenType.USER_DEFINED}
    text = {t: t.replace(" ", "▁") if t in whole else t for t, *_ in tokens}
    vocab = {text[t]: i for i, (t, *_) in enumerate(tokens)}
    # SentencePiece's own score of what it matches as a whole is 0.
    scores = {text[t]: 0.0 if t in whole else s for t, s, kind in tokens if kind in (TokenType.NORMAL, TokenType.USER_DEFINED)}
    others = {t for t, _, kind in tokens if kind in (TokenType.CONTROL, TokenType.BYTE)} | set(MODAL) | {"[multimodal]"}
    merges = generate_merges(vocab, scores, skip_tokens=others)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    special = {*CONTROL, *MODAL, "[multimodal]"}
    tokenizer.add_tokens([AddedToken(text[t], normalized=False) for t in whole if t not in special])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t, *_ in tokens if t in special])
    return tokenizer


def k_blocks(random, kind, rows, columns, wild=False):
    """Blocks of a type that the Python package can't write: random whole numbers under tame (or any) scales."""
    blocks = random.integers(0, 256, (rows * columns // 256, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    scale = random.uniform(-2, 2, len(blocks)) if wild else random.uniform(0.5, 1.0, len(blocks))
    tame = 1.0 if wild else {Type.Q4_K: 3e-4, Type.Q5_K: 1.5e-4, Type.Q6_K: 1e-4}[kind]
    if wild:
        # A subnormal, the largest, zero, minus zero.
        scale[:4] = [6e-8, 65504, 0.0, -0.0]
    halves = (scale * tame).astype(np.float16).view(np.uint8).reshape(-1, 2)
    if kind == Type.Q6_K:
        blocks[:, 208:210] = halves
    else:
        blocks[:, 0:2] = halves
        # About the middle of the quants, so that the weights have both signs.
        blocks[:, 2:4] = (scale * tame * (7.5 if kind == Type.Q4_K else 15.5)).clip(-65504, 65504).astype(np.float16).view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


def add(writer, name, kind, numbers=None, raw=None):
    raw = quantize(numbers.astype(np.float32), kind) if raw is None else raw
    plain = kind in (Type.F32, Type.F16)
    writer.add_tensor(name, raw, raw_dtype=None if plain else kind)


def blocks_file(path):
    random = np.random.default_rng(5)
    writer = GGUFWriter(path, "blocks")
    for kind in (Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q5_0, Type.Q8_0):
        numbers = random.standard_normal((3, 512)) * np.exp(random.uniform(-12, 6, (3, 1)))
        numbers[0, :32] = 0
        add(writer, f"{kind.name}", kind, numbers)
    for kind in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        add(writer, f"{kind.name}", kind, raw=k_blocks(random, kind, 3, 512, wild=True))
    finish(writer)


def tiny_file(path, tokens):
    """A Gemma 3 of six layers, every type in it."""
    random = np.random.default_rng(3)
    hidden, inner, heads, head, layers = 32, 256, 2, 16, 6
    writer = GGUFWriter(path, "gemma3")
    writer.add_name("Tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(8)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([t for t, *_ in tokens])
    writer.add_token_scores([s for _, s, _ in tokens])
    writer.add_token_types([int(k) for *_, k in tokens])
    for name, add_id in [("<bos>", writer.add_bos_token_id), ("<eos>", writer.add_eos_token_id),
                         ("<unk>", writer.add_unk_token_id), ("<pad>", writer.add_pad_token_id)]:
        add_id(CONTROL.index(name))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    types = [Type.Q4_0, Type.Q5_0, Type.Q8_0, Type.F16, Type.BF16, Type.F32]
    downs = [Type.Q4_K, Type.Q5_K, Type.Q6_K]
    norm = lambda size: 1 + 0.1 * random.standard_normal(size)
    matrix = lambda *shape: random.standard_normal(shape) * 0.6 / np.sqrt(shape[1])
    add(writer, "output_norm.weight", Type.F32, norm(hidden))
    add(writer, "token_embd.weight", Type.Q8_0, matrix(len(tokens), hidden))
    for at in range(layers):
        kinds = iter(np.roll(np.array(types, object), at).tolist())
        for name, size in [("attn_norm", hidden), ("post_attention_norm", hidden), ("ffn_norm", hidden),
                           ("post_ffw_norm", hidden), ("attn_q_norm", head), ("attn_k_norm", head)]:
            add(writer, f"blk.{at}.{name}.weight", Type.F32, norm(size))
        for name, shape in [("attn_q", (heads * head, hidden)), ("attn_k", (head, hidden)),
                            ("attn_v", (head, hidden)), ("attn_output", (hidden, heads * head))]:
            add(writer, f"blk.{at}.{name}.weight", next(kinds), matrix(*shape))
        add(writer, f"blk.{at}.ffn_gate.weight", types[at % 3], matrix(inner, hidden))
        add(writer, f"blk.{at}.ffn_up.weight", types[(at + 1) % 3], matrix(inner, hidden))
        kind = downs[at % 3]
        add(writer, f"blk.{at}.ffn_down.weight", kind, raw=k_blocks(random, kind, hidden, inner))
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def digests(path):
    """Of the numbers of each tensor, as gguf-py makes them, in single precision."""
    tensors = {}
    for tensor in GGUFReader(path).tensors:
        data = tensor.data
        # The reader shows BF16 as bytes, like every type that numpy lacks.
        with np.errstate(all="ignore"):
            numbers = dequantize(data, tensor.tensor_type).astype("<f4")
        assert np.isfinite(numbers).all(), tensor.name
        tensors[tensor.name] = {
            "stored": tensor.tensor_type.name,
            "shape": [int(side) for side in reversed(tensor.shape)],
            "sha256": hashlib.sha256(numbers.tobytes()).hexdigest(),
        }
    return tensors


def hidden_states(path, rows):
    """The final hidden states by transformers, which dequantises the file to single precision."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    model.eval()
    for layer in model.model.layers:
        # The loader leaves `query_pre_attn_scalar` at 256, which the file does not say; llama.cpp takes the head's size.
        layer.self_attn.scaling = layer.self_attn.head_dim**-0.5
    with torch.no_grad():
        return [model.model(torch.tensor([ids])).last_hidden_state[0] for ids in rows]


def real_states(path):
    """Mean and last of each text's final hidden states, `<bos>` before the text but not in the mean."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path.with_name("tokenizer.json")))
    tokenizer.encode_special_tokens = True
    rows = [tokenizer.encode(text).ids for text in REAL_TEXTS]
    states = hidden_states(path, rows)
    file = OUT / f"{path.stem}.safetensors"
    # Sixteen bits are plenty for a cosine.
    save_file({"mean": torch.stack([s[1:].mean(0) for s in states]).half(), "last": torch.stack([s[-1] for s in states]).half()}, file)
    print(file.name, file.stat().st_size)
    return [{"text": text, "ids": ids} for text, ids in zip(REAL_TEXTS, rows)]


def operator(path, op, columns, bits, block, zero_points, rows=3):
    """One operator over packed weights, which are inputs so that a test can bring its own."""
    from onnx import TensorProto, helper

    blocks = columns // block
    inputs = {"weights": (TensorProto.UINT8, [rows, blocks, block * bits // 8]), "scales": (TensorProto.FLOAT, [rows, blocks])}
    if op == "MatMulNBits":
        inputs = {"x": (TensorProto.FLOAT, ["m", columns]), **inputs}
        attributes = {"K": columns, "N": rows, "bits": bits, "block_size": block, "accuracy_level": 0}
    else:
        inputs = {"weights": (TensorProto.UINT8, [rows, columns * bits // 8]), "rows": (TensorProto.INT64, ["m"]), "scales": inputs["scales"]}
        attributes = {"gather_axis": 0, "quantize_axis": 1, "bits": bits, "block_size": block}
    if zero_points:
        inputs["zero_points"] = (TensorProto.UINT8, [rows, blocks])
    graph = helper.make_graph(
        [helper.make_node(op, list(inputs), ["y"], domain="com.microsoft", **attributes)],
        op,
        [helper.make_tensor_value_info(name, *info) for name, info in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", None])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def write(path, golden):
    path.write_text(json.dumps(golden, ensure_ascii=True, indent=1) + "\n")
    print(path.name, path.stat().st_size)


def main(argv):
    OUT.mkdir(exist_ok=True)
    if argv[:1] == ["real"]:
        source = Path(argv[1])
        golden = {"sha256": hashlib.sha256(source.read_bytes()).hexdigest(), "tensors": digests(source), "texts": real_states(source)}
        write(OUT / f"{source.stem}.json", golden)
        return
    blocks, tiny = OUT / "blocks.gguf", OUT / "tiny.gguf"
    blocks_file(blocks)
    write(OUT / "blocks.json", {"tensors": digests(blocks)})
    for op, bits, block, zero_points in [("MatMulNBits", 4, 32, False), ("MatMulNBits", 8, 32, False),
                                         ("MatMulNBits", 8, 16, False), ("MatMulNBits", 8, 32, True),
                                         ("GatherBlockQuantized", 8, 32, False)]:
        operator(OUT / f"{op}_{bits}_{block}{'_zero_points' if zero_points else ''}.onnx", op, 512, bits, block, zero_points)
    tokens = vocabulary()
    tiny_file(tiny, tokens)
    tokenizer = reference_tokenizer(tokens)
    samples = []
    for text in SAMPLES:
        tokenizer.encode_special_tokens = False
        written = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        samples.append({"text": text, "written": written, "content": tokenizer.encode(text, add_special_tokens=False).ids})
    ids = [CONTROL.index("<bos>"), *samples[0]["content"]]
    write(OUT / "tiny.json", {
        "tensors": digests(tiny),
        "samples": samples,
        "ids": ids,
        "hidden": [[round(x, 7) for x in row] for row in hidden_states(tiny, [ids])[0].tolist()],
    })


if __name__ == "__main__":
    main(sys.argv[1:])
