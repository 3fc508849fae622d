//! The decoder graph: some positions of a prompt in, with the keys and values of those before; Yes and No out.
//!
//! One graph serves every pass: prefixes (a row an image, one empty past), the policies' suffixes (no
//! image, the prefixes as pasts, a row for each image and policy), and whole prompts at once. Reference: transformers
//! `Gemma3Model` and `Gemma3TextModel`; of the head only the rows Yes and No are computed, and only for
//! the last position of each row.

use super::attention::{Attended, BATCH, Decoding, LENGTH, PAST, Past, Shared, TOTAL, decoding};
use super::mlp::{Gated, gated};
use super::ops::Axis;
use super::repeat::{GROUPS, Repeat};
use super::weights::Table;
use super::{Built, Dim, Graph, GraphError, Type, Value, norm};
use crate::checkpoint::config::{Config, LayerKind, TextConfig};
use crate::checkpoint::weights::Weights;

/// Token ids before the image, [batch, any].
pub const BEFORE: &str = "ids_before";
/// The image's tokens, [batch, tokens or 0, hidden].
pub const FEATURES: &str = "image_features";
/// Token ids after the image, [batch, any].
pub const AFTER: &str = "ids_after";
/// For each position its row in the four tables, [batch, length].
pub const ROWS: &str = "rope_rows";
pub const GLOBAL_COS: &str = "global_cos";
pub const GLOBAL_SIN: &str = "global_sin";
pub const LOCAL_COS: &str = "local_cos";
pub const LOCAL_SIN: &str = "local_sin";
/// Added to the scores, [length, total].
pub const GLOBAL_MASK: &str = "global_mask";
pub const LOCAL_MASK: &str = "local_mask";
/// The last position of each row, counted through all rows, [batch].
pub const LAST: &str = "last";
/// Logits of Yes and No, [batch, 2].
pub const LOGITS: &str = "logits";

pub(super) const EMBEDDING: &str = "language_model.embed_tokens.weight";
pub(super) const FINAL_NORM: &str = "language_model.norm.weight";

/// [groups, kv_heads, past, head_dim]; the batch is a multiple of the groups.
pub fn past_name(layer: usize, part: Part) -> String {
    format!("past_{}.{layer}", part.name())
}

/// [batch, kv_heads, past + length, head_dim]
pub fn present_name(layer: usize, part: Part) -> String {
    format!("present_{}.{layer}", part.name())
}

#[derive(Debug, Clone, Copy)]
pub enum Part {
    Key,
    Value,
}

impl Part {
    pub const BOTH: [Self; 2] = [Self::Key, Self::Value];

    fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
        }
    }
}

pub fn build(config: &Config, weights: &Weights) -> Result<Built, GraphError> {
    let text = &config.text;
    let mut graph = Graph::new("decoder", weights);
    let half = text.head_dim / 2;
    let rows_dims = [Dim::Named("rope_rows_count"), half.into()];
    let before = graph.input(BEFORE, Type::I64, &[BATCH, Dim::Named("before")])?;
    let features = graph.input(FEATURES, Type::F32, &[BATCH, Dim::Named("image"), text.hidden.into()])?;
    let after = graph.input(AFTER, Type::I64, &[BATCH, Dim::Named("after")])?;
    let rows = graph.input(ROWS, Type::I64, &[BATCH, LENGTH])?;
    let mut of_kind = |[cos, sin, mask]: [&str; 3]| -> Result<[Value; 3], GraphError> {
        Ok([
            graph.input(cos, Type::F32, &rows_dims)?,
            graph.input(sin, Type::F32, &rows_dims)?,
            graph.input(mask, Type::F32, &[LENGTH, TOTAL])?,
        ])
    };
    let [global_cos, global_sin, global_mask] = of_kind([GLOBAL_COS, GLOBAL_SIN, GLOBAL_MASK])?;
    let [local_cos, local_sin, local_mask] = of_kind([LOCAL_COS, LOCAL_SIN, LOCAL_MASK])?;
    let last = graph.input(LAST, Type::I64, &[BATCH])?;

    let embedding = graph.table(EMBEDDING, [text.vocabulary, text.hidden])?;
    let mut x = embedded(&mut graph, text.hidden, &embedding, [&before, &features, &after])?;
    let mut repeat = None;
    for (at, kind) in text.layers.iter().enumerate() {
        let [cos, sin, mask] = match kind {
            LayerKind::Global => [&global_cos, &global_sin, &global_mask],
            LayerKind::Local => [&local_cos, &local_sin, &local_mask],
        };
        let shared = Shared { cos, sin, rows: &rows, mask, total: TOTAL };
        // All pasts have one shape, so the first one tells it for all.
        let past = past(&mut graph, text, at, (&rows, PAST), ("/decoder/repeat", &mut repeat))?;
        let out = layer(&mut graph, text, at, &x, &shared, &past)?;
        graph.output(&present_name(at, Part::Key), &out.key)?;
        graph.output(&present_name(at, Part::Value), &out.value)?;
        x = out.hidden;
    }
    let logits = head(&mut graph, config, &x, &last, &embedding)?;
    graph.output(LOGITS, &logits)?;
    Ok(graph.finish())
}

/// ```text
/// ids_before ─ Gather ─ · √hidden ┐
/// image_features ─────────────────┼ Concat ─
/// ids_after ── Gather ─ · √hidden ┘
/// ```
fn embedded(
    graph: &mut Graph<'_>,
    hidden: usize,
    embedding: &Table,
    [before, features, after]: [&Value; 3],
) -> Result<Value, GraphError> {
    let scale = embedding_scale(graph, hidden)?;
    let mut rows = |part: &str, ids: &Value| {
        scaled_rows(graph, &format!("/decoder/embedding_{part}"), ids, embedding, &scale)
    };
    let (before, after) = (rows("before", before)?, rows("after", after)?);
    // Image features are not scaled.
    graph.concat("/decoder/embedded", &[&before, features, &after], LENGTH)
}

pub(super) fn embedding_scale(graph: &mut Graph<'_>, hidden: usize) -> Result<Value, GraphError> {
    graph.floats("/decoder/embedding_scale", &[(hidden as f64).sqrt() as f32], &[1])
}

/// `ids ─ Gather ─ · √hidden ─`
pub(super) fn scaled_rows(
    graph: &mut Graph<'_>,
    path: &str,
    ids: &Value,
    embedding: &Table,
    scale: &Value,
) -> Result<Value, GraphError> {
    let rows = graph.rows(&format!("{path}/gather"), embedding, ids)?;
    graph.mul(path, &rows, scale)
}

/// A layer's keys and values of the positions before the pass, repeated for the rows that continue them.
/// `length` names how many these are; `repeat` is shared by the layers for which it is the same.
pub(super) fn past(
    graph: &mut Graph<'_>,
    text: &TextConfig,
    at: usize,
    (rows, length): (&Value, Dim),
    (path, repeat): (&str, &mut Option<Repeat>),
) -> Result<Past, GraphError> {
    let mut of = |part: Part| -> Result<Value, GraphError> {
        let dims = [GROUPS, text.kv_heads.into(), length, text.head_dim.into()];
        let past = graph.input(&past_name(at, part), Type::F32, &dims)?;
        let repeat = match repeat {
            Some(repeat) => repeat,
            None => repeat.insert(Repeat::new(graph, path, rows, &past)?),
        };
        repeat.apply(graph, &format!("/decoder/layers.{at}/past_{}", part.name()), &past)
    };
    Ok(Past { key: of(Part::Key)?, value: of(Part::Value)? })
}

/// ```text
/// x ┬ RMSNorm ─ attention ─ RMSNorm ─ + ┬ RMSNorm ─ mlp ─ RMSNorm ─ + ─
///   └─────────────────────────────────┘ └────────────────────────┘
/// ```
pub(super) fn layer(
    graph: &mut Graph<'_>,
    text: &TextConfig,
    at: usize,
    x: &Value,
    shared: &Shared<'_>,
    past: &Past,
) -> Result<Attended, GraphError> {
    let (path, name) = (format!("/decoder/layers.{at}"), format!("language_model.layers.{at}"));
    let normed = |graph: &mut Graph<'_>, x: &Value, part: &str| {
        norm::rms(graph, &format!("{path}/{part}"), x, &format!("{name}.{part}.weight"), text.norm_epsilon)
    };
    let into_attention = normed(graph, x, "input_layernorm")?;
    let attention_name = format!("{name}.self_attn");
    let shape = Decoding {
        name: &attention_name,
        hidden: text.hidden,
        heads: text.heads,
        kv_heads: text.kv_heads,
        head_dim: text.head_dim,
        norm_epsilon: text.query_norms.then_some(text.norm_epsilon),
        scale: text.scale,
        cap: text.score_cap,
    };
    let Attended { hidden, key, value } =
        decoding(graph, &format!("{path}/attention"), &into_attention, &shape, shared, past)?;
    let attended = normed(graph, &hidden, "post_attention_layernorm")?;
    let x = graph.add(&format!("{path}/attended"), x, &attended)?;

    let into_mlp = normed(graph, &x, "pre_feedforward_layernorm")?;
    let mlp_name = format!("{name}.mlp");
    let shape = Gated { name: &mlp_name, hidden: text.hidden, inner: text.inner };
    let thought = gated(graph, &format!("{path}/mlp"), &into_mlp, &shape)?;
    let thought = normed(graph, &thought, "post_feedforward_layernorm")?;
    Ok(Attended { hidden: graph.add(&format!("{path}/out"), &x, &thought)?, key, value })
}

/// `[batch, length, hidden] ─ last position ─ RMSNorm ─ · [Yes, No]ᵀ ─`
fn head(
    graph: &mut Graph<'_>,
    config: &Config,
    x: &Value,
    last: &Value,
    embedding: &Table,
) -> Result<Value, GraphError> {
    let text = &config.text;
    let ends = ends(graph, text, x, last)?;
    let normed = norm::rms(graph, "/head/norm", &ends, FINAL_NORM, text.norm_epsilon)?;
    logits(graph, text, &[config.yes_token, config.no_token], &normed, embedding)
}

/// The last position of each row: [batch, length, hidden] → [batch, hidden].
pub(super) fn ends(
    graph: &mut Graph<'_>,
    text: &TextConfig,
    x: &Value,
    last: &Value,
) -> Result<Value, GraphError> {
    let flat =
        graph.reshape("/head/flat", x, &[Axis::Rest(Dim::Named("positions")), Axis::Is(text.hidden)])?;
    graph.gather("/head/last", &flat, last)
}

/// Of the head only the rows of `answers`: [batch, hidden] → [batch, answers].
pub(super) fn logits(
    graph: &mut Graph<'_>,
    text: &TextConfig,
    answers: &[u32],
    normed: &Value,
    embedding: &Table,
) -> Result<Value, GraphError> {
    let untied;
    let table = if text.tied_head {
        embedding
    } else {
        untied = graph.table("lm_head.weight", [text.vocabulary, text.hidden])?;
        &untied
    };
    let ids: Vec<i64> = answers.iter().map(|id| i64::from(*id)).collect();
    let ids = graph.ints("/head/answers", &ids, &[ids.len()])?;
    let rows = graph.rows("/head/rows", table, &ids)?;
    let logits = graph.linear("/head/logits", normed, &rows)?;
    match text.logit_cap {
        Some(cap) => graph.capped("/head/capped", &logits, cap),
        None => Ok(logits),
    }
}
