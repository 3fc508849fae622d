//! The text decoder graph: some tokens of several texts in, with the keys and values of those before; pooled
//! hidden states and the logits of some answers out.
//!
//! Reference: transformers `Gemma3TextModel` (`hidden_states`), `Gemma3ForCausalLM` and those of Gemma 2. Long texts are run
//! piece by piece: pooling is a weighted sum over a piece's positions, so that sums of pieces are the whole's,
//! and of local layers only the keys and values that the next piece can see come back. The graph ends with
//! the last layer that anything is read from.

use super::attention::{BATCH, LENGTH, PAST, Shared, TOTAL};
use super::decoder::{
    EMBEDDING, FINAL_NORM, GLOBAL_COS, GLOBAL_MASK, GLOBAL_SIN, LAST, LOCAL_COS, LOCAL_MASK, LOCAL_SIN,
    LOGITS, Part, ROWS, embedding_scale, ends, layer, logits, past, present_name, scaled_rows,
};
use super::{Built, Dim, Graph, GraphError, Type, Value, norm};
use crate::checkpoint::config::{LayerKind, TextConfig};
use crate::checkpoint::weights::Weights;

/// Raised with every change to what this graph computes beside the parts it shares; part of a judge's digest.
pub const VERSION: u32 = 1;

/// Token ids, [batch, length].
pub const IDS: &str = "ids";
/// What each position counts for in each pool, [batch, pools, length].
pub const POOLING: &str = "pooling";

/// Weighted sums of a tap's hidden states, [batch, pools, hidden].
pub fn pooled_name(tap: usize) -> String {
    format!("pooled.{tap}")
}

/// Positions before the pass that local layers still see.
const LOCAL_PAST: Dim = Dim::Named("local_past");
const LOCAL_TOTAL: Dim = Dim::Named("local_total");
const LOCAL_KEPT: Dim = Dim::Named("local_kept");

/// A place that hidden states are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tap {
    /// After so many layers; none is the embeddings. As transformers' `hidden_states[n]` for all but the last.
    Layer(usize),
    /// After all layers and the final norm: transformers' `hidden_states[-1]`.
    Final,
}

/// What a graph computes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    pub taps: Vec<Tap>,
    /// Tokens whose logits at the last position are wanted.
    pub answers: Vec<u32>,
}

impl Reads {
    /// Layers that anything is read from, one at least.
    pub fn depth(&self, text: &TextConfig) -> usize {
        let all = text.layers.len();
        if !self.answers.is_empty() {
            return all;
        }
        let deep = |tap: &Tap| match tap {
            Tap::Layer(after) => (*after).min(all),
            Tap::Final => all,
        };
        self.taps.iter().map(deep).max().unwrap_or(all).max(1)
    }
}

/// Keys and values of a local layer that positions after a pass can see.
pub fn kept(window: usize) -> usize {
    window.saturating_sub(1).max(1)
}

pub fn build(text: &TextConfig, reads: &Reads, weights: &Weights) -> Result<Built, GraphError> {
    let mut graph = Graph::new("text", weights);
    let rows_dims = [Dim::Named("rope_rows_count"), (text.head_dim / 2).into()];
    let ids = graph.input(IDS, Type::I64, &[BATCH, LENGTH])?;
    let rows = graph.input(ROWS, Type::I64, &[BATCH, LENGTH])?;
    let mut of_kind = |[cos, sin, mask]: [&str; 3], total: Dim| -> Result<[Value; 3], GraphError> {
        Ok([
            graph.input(cos, Type::F32, &rows_dims)?,
            graph.input(sin, Type::F32, &rows_dims)?,
            graph.input(mask, Type::F32, &[LENGTH, total])?,
        ])
    };
    let global = of_kind([GLOBAL_COS, GLOBAL_SIN, GLOBAL_MASK], TOTAL)?;
    let local = of_kind([LOCAL_COS, LOCAL_SIN, LOCAL_MASK], LOCAL_TOTAL)?;

    let embedding = graph.table(EMBEDDING, [text.vocabulary, text.hidden])?;
    let scale = embedding_scale(&mut graph, text.hidden)?;
    let mut x = scaled_rows(&mut graph, "/decoder/embedding", &ids, &embedding, &scale)?;
    let mut pools = Pools::new(&mut graph, &reads.taps)?;
    pools.read(&mut graph, Tap::Layer(0), &x)?;
    let (mut repeat, mut local_repeat) = (None, None);
    for (at, kind) in text.layers.iter().enumerate().take(reads.depth(text)) {
        let ([cos, sin, mask], total) = match kind {
            LayerKind::Global => (&global, TOTAL),
            LayerKind::Local => (&local, LOCAL_TOTAL),
        };
        let shared = Shared { cos, sin, rows: &rows, mask, total };
        let past = match kind {
            LayerKind::Global => past(&mut graph, text, at, (&rows, PAST), ("/decoder/repeat", &mut repeat))?,
            LayerKind::Local => {
                let repeat = ("/decoder/local_repeat", &mut local_repeat);
                past(&mut graph, text, at, (&rows, LOCAL_PAST), repeat)?
            }
        };
        let out = layer(&mut graph, text, at, &x, &shared, &past)?;
        for (part, present) in [(Part::Key, out.key), (Part::Value, out.value)] {
            let present = match kind {
                LayerKind::Global => present,
                LayerKind::Local => newest(&mut graph, text, &present)?,
            };
            graph.output(&present_name(at, part), &present)?;
        }
        x = out.hidden;
        pools.read(&mut graph, Tap::Layer(at + 1), &x)?;
    }
    let normed = (reads.taps.contains(&Tap::Final) || !reads.answers.is_empty())
        .then(|| norm::rms(&mut graph, "/head/norm", &x, FINAL_NORM, text.norm_epsilon))
        .transpose()?;
    if let Some(normed) = normed {
        pools.read(&mut graph, Tap::Final, &normed)?;
        if !reads.answers.is_empty() {
            let last = graph.input(LAST, Type::I64, &[BATCH])?;
            let ends = ends(&mut graph, text, &normed, &last)?;
            let logits = logits(&mut graph, text, &reads.answers, &ends, &embedding)?;
            graph.output(LOGITS, &logits)?;
        }
    }
    pools.finish()?;
    Ok(graph.finish())
}

/// `[batch, kv_heads, total, head_dim] ─ Slice ─`: the end of it that the window reaches back to.
fn newest(graph: &mut Graph<'_>, text: &TextConfig, present: &Value) -> Result<Value, GraphError> {
    let path = format!("{}/newest", present.name);
    let mut number = |part: &str, number: i64| graph.ints(&format!("{path}/{part}"), &[number], &[1]);
    // Slices are cut to what is there, so a shorter past is kept whole.
    let (start, end) = (number("start", -(kept(text.window) as i64))?, number("end", i64::MAX)?);
    let axis = number("axis", 2)?;
    let dims = vec![BATCH, text.kv_heads.into(), LOCAL_KEPT, text.head_dim.into()];
    graph.node(&path, ("", "Slice"), &[present, &start, &end, &axis], (present.kind, dims), vec![])
}

/// `pooling [batch, pools, length] · hidden states [batch, length, hidden]`, a result a tap.
struct Pools<'a> {
    taps: &'a [Tap],
    /// None where nothing is pooled: a graph has no input that nothing reads.
    pooling: Option<Value>,
    read: usize,
}

impl<'a> Pools<'a> {
    fn new(graph: &mut Graph<'_>, taps: &'a [Tap]) -> Result<Self, GraphError> {
        let pooling = (!taps.is_empty())
            .then(|| graph.input(POOLING, Type::F32, &[BATCH, Dim::Named("pools"), LENGTH]))
            .transpose()?;
        Ok(Self { taps, pooling, read: 0 })
    }

    fn read(&mut self, graph: &mut Graph<'_>, tap: Tap, x: &Value) -> Result<(), GraphError> {
        let Some(pooling) = &self.pooling else { return Ok(()) };
        for (number, _) in self.taps.iter().enumerate().filter(|(_, wanted)| **wanted == tap) {
            let pooled = graph.sums(&format!("/pool.{number}"), pooling, x)?;
            graph.output(&pooled_name(number), &pooled)?;
            self.read += 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), GraphError> {
        if self.read == self.taps.len() {
            return Ok(());
        }
        let reason = format!("{:?} name a layer that the model does not have", self.taps);
        Err(GraphError::Node { node: "/pool".to_owned(), reason })
    }
}
