//! Attention: Gemma 3's with rotary positions, grouped heads and a past; SigLIP's over all patches.
//!
//! Reference: transformers `Gemma3Attention`, `Gemma2Attention` and `SiglipAttention`. What a token may see is no business
//! of this file: it is the additive mask that each pass brings.

use super::mlp::biased;
use super::ops::Axis;
use super::{Attribute, Dim, Graph, GraphError, MICROSOFT, Type, Value, norm};

/// Lengths of a decoder pass.
pub(super) const BATCH: Dim = Dim::Named("batch");
pub(super) const LENGTH: Dim = Dim::Named("length");
pub(super) const PAST: Dim = Dim::Named("past");
pub(super) const TOTAL: Dim = Dim::Named("total");

pub(super) struct Decoding<'a> {
    /// The weights' path.
    pub(super) name: &'a str,
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Queries and keys are normed; None leaves them, as in Gemma 2.
    pub(super) norm_epsilon: Option<f32>,
    /// Scores are multiplied by it; Gemma's comes from its configuration, not from the head's size.
    pub(super) scale: f32,
    /// Then they become `cap · tanh(score / cap)`, before the mask is added: Gemma 2.
    pub(super) cap: Option<f32>,
}

/// What a layer of one kind (local or global) shares with the others of its kind.
pub(super) struct Shared<'a> {
    /// [rows, head_dim / 2]
    pub(super) cos: &'a Value,
    pub(super) sin: &'a Value,
    /// [batch, length]: rows of the two.
    pub(super) rows: &'a Value,
    /// [length, total], added to the scores.
    pub(super) mask: &'a Value,
    /// Positions before the pass and with it.
    pub(super) total: Dim,
}

pub(super) struct Past {
    /// [batch, kv_heads, past, head_dim]
    pub(super) key: Value,
    pub(super) value: Value,
}

pub(super) struct Attended {
    pub(super) hidden: Value,
    /// [batch, kv_heads, total, head_dim]
    pub(super) key: Value,
    pub(super) value: Value,
}

/// ```text
/// x ┬ q_proj ─ heads ─ q_norm ─ RotaryEmbedding ┐
///   ├ k_proj ─ heads ─ k_norm ─ RotaryEmbedding ┼ Attention(mask, past) ┬ join heads ─ o_proj ─
///   └ v_proj ─ heads ───────────────────────────┘                       └ present key, value
/// ```
pub(super) fn decoding(
    graph: &mut Graph<'_>,
    path: &str,
    x: &Value,
    shape: &Decoding<'_>,
    shared: &Shared<'_>,
    past: &Past,
) -> Result<Attended, GraphError> {
    let Decoding { name, hidden, heads, kv_heads, head_dim, norm_epsilon, scale, cap } = *shape;
    let mut heads_of = |part: &str, count: usize| -> Result<Value, GraphError> {
        let weight = format!("{name}.{part}_proj.weight");
        let flat = graph.projected(&format!("{path}/{part}_proj"), x, &weight, [count * head_dim, hidden])?;
        let split = [Axis::Same, Axis::Same, Axis::Is(count), Axis::Is(head_dim)];
        let split = graph.reshape(&format!("{path}/{part}_heads"), &flat, &split)?;
        graph.transpose(&format!("{path}/{part}_transposed"), &split, &[0, 2, 1, 3])
    };
    let (q, k, v) = (heads_of("q", heads)?, heads_of("k", kv_heads)?, heads_of("v", kv_heads)?);
    let mut normed = |x: Value, part: &str| match norm_epsilon {
        Some(epsilon) => {
            let weight = format!("{name}.{part}_norm.weight");
            norm::rms(graph, &format!("{path}/{part}_norm"), &x, &weight, epsilon)
        }
        None => Ok(x),
    };
    let (q, k) = (normed(q, "q")?, normed(k, "k")?);
    let q = rotated(graph, &format!("{path}/q_rope"), &q, shared)?;
    let k = rotated(graph, &format!("{path}/k_rope"), &k, shared)?;

    let value = |part: &str, count: usize, length: Dim| Value {
        name: format!("{path}/attention:{part}"),
        kind: Type::F32,
        dims: vec![BATCH, count.into(), length, head_dim.into()],
    };
    let out = value("out", heads, LENGTH);
    let (key, present) = (value("key", kv_heads, shared.total), value("value", kv_heads, shared.total));
    graph.emit(
        &format!("{path}/attention"),
        "",
        "Attention",
        &[&q, &k, &v, shared.mask, &past.key, &past.value],
        &[out.clone(), key.clone(), present.clone()],
        [("scale", Some(scale)), ("softcap", cap)]
            .into_iter()
            .filter_map(|(name, number)| Some(Attribute::Float(name, number?)))
            .collect(),
    )?;
    for made in [&out, &key, &present] {
        graph.take_name(&made.name)?;
    }
    let joined = graph.transpose(&format!("{path}/out_transposed"), &out, &[0, 2, 1, 3])?;
    let joined = graph.reshape(
        &format!("{path}/out_joined"),
        &joined,
        &[Axis::Same, Axis::Same, Axis::Is(heads * head_dim)],
    )?;
    let weight = format!("{name}.o_proj.weight");
    let hidden = graph.projected(&format!("{path}/o_proj"), &joined, &weight, [hidden, heads * head_dim])?;
    Ok(Attended { hidden, key, value: present })
}

/// `x · cos + rotate_half(x) · sin` (transformers `apply_rotary_pos_emb`), halves not interleaved.
fn rotated(graph: &mut Graph<'_>, path: &str, x: &Value, shared: &Shared<'_>) -> Result<Value, GraphError> {
    let inputs = [x, shared.cos, shared.sin, shared.rows];
    graph.node(path, ("", "RotaryEmbedding"), &inputs, (x.kind, x.dims.clone()), vec![])
}

pub(super) struct Seeing<'a> {
    /// The weights' path.
    pub(super) name: &'a str,
    pub(super) hidden: usize,
    pub(super) heads: usize,
}

/// ```text
/// x ┬ q_proj ┐
///   ├ k_proj ┼ MultiHeadAttention ─ out_proj ─
///   └ v_proj ┘
/// ```
pub(super) fn seeing(
    graph: &mut Graph<'_>,
    path: &str,
    x: &Value,
    shape: &Seeing<'_>,
) -> Result<Value, GraphError> {
    let Seeing { name, hidden, heads } = *shape;
    let mut projected =
        |part: &str| biased(graph, &format!("{path}/{part}"), x, &format!("{name}.{part}"), [hidden, hidden]);
    let (q, k, v) = (projected("q_proj")?, projected("k_proj")?, projected("v_proj")?);
    let scale = (hidden as f64 / heads as f64).powf(-0.5) as f32;
    let attributes = vec![Attribute::Int("num_heads", heads as i64), Attribute::Float("scale", scale)];
    let result = (x.kind, x.dims.clone());
    let out = graph.node(
        &format!("{path}/attention"),
        (MICROSOFT, "MultiHeadAttention"),
        &[&q, &k, &v],
        result,
        attributes,
    )?;
    biased(graph, &format!("{path}/out_proj"), &out, &format!("{name}.out_proj"), [hidden, hidden])
}
