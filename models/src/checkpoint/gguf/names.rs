//! What GGUF files of Gemma 3 call the tensors of a safetensors checkpoint.
//!
//! Shapes and layout are the same in both. One thing differs: norm weights are stored as `1 + w` here, as
//! they are multiplied, where a safetensors file has `w`.

/// GGUF, safetensors under [`DECODER`].
const WHOLE: [(&str, &str); 2] =
    [("token_embd.weight", "embed_tokens.weight"), ("output_norm.weight", "norm.weight")];
/// The head, where it is not the embedding; not of the decoder in a safetensors file.
const HEAD: (&str, &str) = ("output.weight", "lm_head.weight");
/// After `blk.N.` and `layers.N.`.
const LAYER: [(&str, &str); 13] = [
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight"),
    ("post_attention_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_norm.weight", "pre_feedforward_layernorm.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
    ("post_ffw_norm.weight", "post_feedforward_layernorm.weight"),
];
const DECODER: &str = "language_model.";

/// The name in a GGUF of a tensor as [`plain_name`](crate::checkpoint::safetensors::plain_name) calls it.
pub fn gguf_name(plain: &str) -> Option<String> {
    if plain == HEAD.1 {
        return Some(HEAD.0.to_owned());
    }
    let name = plain.strip_prefix(DECODER)?;
    if let Some((gguf, _)) = WHOLE.iter().find(|(_, whole)| *whole == name) {
        return Some((*gguf).to_owned());
    }
    let (layer, part) = layer(name, "layers.")?;
    let (gguf, _) = LAYER.iter().find(|(_, of)| *of == part)?;
    Some(format!("blk.{layer}.{gguf}"))
}

/// The other way round. None for tensors that no Gemma 3 decoder has.
pub fn plain_name(gguf: &str) -> Option<String> {
    if gguf == HEAD.0 {
        return Some(HEAD.1.to_owned());
    }
    if let Some((_, whole)) = WHOLE.iter().find(|(of, _)| *of == gguf) {
        return Some(format!("{DECODER}{whole}"));
    }
    let (layer, part) = layer(gguf, "blk.")?;
    let (_, plain) = LAYER.iter().find(|(of, _)| *of == part)?;
    Some(format!("{DECODER}layers.{layer}.{plain}"))
}

/// Whether the tensor is a layer's own: all but the embedding, the head and the last norm.
pub fn is_layers(gguf: &str) -> bool {
    gguf.starts_with("blk.")
}

/// Whether the tensor is stored as `1 + w`.
pub fn is_norm(gguf: &str) -> bool {
    gguf.ends_with("_norm.weight")
}

fn layer<'a>(name: &'a str, before: &str) -> Option<(u32, &'a str)> {
    let (number, part) = name.strip_prefix(before)?.split_once('.')?;
    // `+1` and `01` are no other names of layer 1.
    let layer = number.parse().ok().filter(|layer: &u32| layer.to_string() == number)?;
    Some((layer, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_counterpart() {
        let layers = LAYER.iter().map(|(gguf, _)| format!("blk.17.{gguf}"));
        let all = WHOLE.iter().map(|(gguf, _)| (*gguf).to_owned()).chain([HEAD.0.to_owned()]).chain(layers);
        for gguf in all {
            let plain = plain_name(&gguf).unwrap();
            assert_eq!(gguf_name(&plain).as_deref(), Some(gguf.as_str()));
        }
        assert_eq!(
            gguf_name("language_model.layers.0.mlp.gate_proj.weight").as_deref(),
            Some("blk.0.ffn_gate.weight")
        );
        for other in ["blk.01.attn_q.weight", "blk.x.attn_q.weight", "blk.1.attn_q.bias", "rope_freqs.weight"]
        {
            assert_eq!(plain_name(other), None, "{other}");
        }
        assert!(is_norm("output_norm.weight") && is_norm("blk.0.attn_q_norm.weight"));
        assert!(!is_norm("blk.0.attn_q.weight"));
    }
}
