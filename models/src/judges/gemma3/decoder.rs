//! Runs the text graph: rows of tokens, piece by piece, over the keys and values of what stands before them.
//!
//! Rows of a batch are filled up behind their end, where causality keeps it from being seen; so no mask knows
//! of padding, and what a row gives does not depend on the others. Memory is bounded by the piece: of local
//! layers only the window stays, of global ones the keys and values.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ort::memory::Allocator;
use ort::session::{Session, SessionInputValue, SessionOutputs};
use ort::value::{DynValue, Tensor};

use crate::checkpoint::config::{LayerKind, Rope, TextConfig};
use crate::graph::decoder::{self as tables, Part, past_name, present_name};
use crate::graph::text::{self as graph, Reads};
use crate::judges::positions::Span;
use crate::runtime::{failure, stoppable};
use crate::{Failure, Stop};

/// Tokens of a row that one pass takes, unless attention to what stands before them would take too much.
pub(super) const PIECE: usize = 512;

/// Attention scores of one layer, in numbers: 128 MiB.
const SCORES_MAX: usize = 1 << 25;

/// How a text's positions become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean of the content's tokens.
    Mean,
    /// The content's last token.
    Last,
}

/// What becomes one vector: some of a row's own tokens, in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) pooling: Pooling,
    /// Not empty.
    pub(super) tokens: Range<usize>,
}

impl Pool {
    /// Where nothing is pooled; the graph wants to know all the same.
    pub(super) fn any() -> Vec<Self> {
        vec![Self { pooling: Pooling::Mean, tokens: 0..1 }]
    }
}

/// One row of a batch.
#[derive(Clone)]
pub(super) struct Row<'a> {
    /// Not empty.
    pub(super) ids: &'a [u32],
    /// Not empty.
    pub(super) pools: Vec<Pool>,
}

/// What one row gives.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) pools: Vec<Pool>,
    /// Tap after tap, in each pool after pool, in each [hidden].
    pub(super) pooled: Vec<f32>,
    /// At the row's last token.
    pub(super) logits: Vec<f32>,
}

/// Keys and values of what stands before a row's tokens: one row for all, or one for each.
pub(super) struct Past {
    length: usize,
    /// Those that local layers still hold.
    local: usize,
    /// With the names of the inputs they go into.
    values: Vec<(String, DynValue)>,
}

impl Past {
    pub(super) fn length(&self) -> usize {
        self.length
    }
}

pub(super) struct Decoder {
    text: TextConfig,
    reads: Reads,
    /// `run` wants it exclusively.
    session: Mutex<Session>,
    piece: usize,
    nothing: Arc<Past>,
}

impl Decoder {
    /// The session is over the graph that `reads` makes.
    pub(super) fn new(session: Session, text: TextConfig, reads: Reads) -> ort::Result<Self> {
        let shape = [1, text.kv_heads, 0, text.head_dim];
        let mut values = Vec::new();
        for layer in 0..reads.depth(&text) {
            for part in Part::BOTH {
                let empty = Tensor::<f32>::new(&Allocator::default(), shape)?;
                values.push((past_name(layer, part), empty.into_dyn()));
            }
        }
        let nothing = Arc::new(Past { length: 0, local: 0, values });
        Ok(Self { text, reads, session: Mutex::new(session), piece: PIECE, nothing })
    }

    /// Tokens of a row a pass; for tests, which compare lengths.
    pub(super) fn with_piece(mut self, tokens: usize) -> Self {
        self.piece = tokens.max(1);
        self
    }

    /// Before the first token.
    pub(super) fn nothing(&self) -> Arc<Past> {
        Arc::clone(&self.nothing)
    }

    /// How much memory the keys and values of so many tokens take, at most, in bytes.
    pub(super) fn past_bytes(&self, tokens: usize) -> usize {
        2 * size_of::<f32>() * self.reads.depth(&self.text) * self.text.kv_heads * self.text.head_dim * tokens
    }

    /// Rows as they continue `past`: all of them its only row, or so many each of its rows.
    pub(super) fn read(&self, rows: &[Row<'_>], past: &Past, stop: &Stop) -> Result<Vec<Reading>, Failure> {
        Ok(self.pieces(rows, past, stop)?.0)
    }

    /// The keys and values of one row and what stands before it.
    pub(super) fn extend(&self, ids: &[u32], past: &Past, stop: &Stop) -> Result<Past, Failure> {
        // With a single row there is no padding among them.
        let row = Row { ids, pools: Pool::any() };
        let (_, made) = self.pieces(&[row], past, stop)?;
        made.ok_or_else(|| Failure::Runtime("no tokens to continue with".to_owned()))
    }

    fn pieces(
        &self,
        rows: &[Row<'_>],
        past: &Past,
        stop: &Stop,
    ) -> Result<(Vec<Reading>, Option<Past>), Failure> {
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or_default();
        if past.length + longest > self.text.positions {
            let (found, max) = (past.length + longest, self.text.positions);
            return Err(Failure::Runtime(format!("the text has {found} tokens; the model takes {max}")));
        }
        let width = self.reads.taps.len() * self.text.hidden;
        let total = |row: &Row<'_>| Total { pooled: vec![0.0; width * row.pools.len()], logits: Vec::new() };
        let mut totals: Vec<Total> = rows.iter().map(total).collect();
        let mut made: Option<Past> = None;
        let mut at = 0;
        while at < longest {
            let before = made.as_ref().unwrap_or(past);
            let length = self.piece_after(before.length, rows.len()).min(longest - at);
            made = Some(self.piece(rows, at..at + length, before, &mut totals, stop)?);
            at += length;
        }
        let readings = totals.into_iter().zip(rows).map(|(total, row)| total.reading(row));
        Ok((readings.collect(), made))
    }

    /// A piece's length: the longer what stands before it, the shorter, so that the scores stay bounded.
    fn piece_after(&self, past: usize, rows: usize) -> usize {
        let mut length = self.piece;
        while length > 1 && rows * self.text.heads * length * (past + length) > SCORES_MAX {
            length /= 2;
        }
        length
    }

    /// One pass over the same positions of every row.
    fn piece(
        &self,
        rows: &[Row<'_>],
        span: Range<usize>,
        past: &Past,
        totals: &mut [Total],
        stop: &Stop,
    ) -> Result<Past, Failure> {
        let fail = |error: ort::Error| failure(&error, stop);
        let mut inputs = self.tables(rows.len(), span.len(), past).map_err(fail)?;
        inputs.extend(self.rows(rows, &span).map_err(fail)?);
        let past_inputs =
            past.values.iter().map(|(name, value)| (name.as_str().into(), SessionInputValue::from(value)));
        let inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> =
            inputs.into_iter().map(|(name, value)| (name.into(), value.into())).chain(past_inputs).collect();

        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        // After the lock: while another run held it, this one's time may have run out.
        let options = stoppable(stop)?;
        let mut outputs = session.run_with_options(inputs, &*options).map_err(fail)?;
        self.add(&outputs, rows, &span, totals).map_err(fail)?;
        let mut values = Vec::with_capacity(past.values.len());
        for layer in 0..self.reads.depth(&self.text) {
            for part in Part::BOTH {
                let present = outputs.remove(present_name(layer, part));
                let present =
                    present.ok_or_else(|| Failure::Runtime(format!("layer {layer} gave no keys")))?;
                values.push((past_name(layer, part), present));
            }
        }
        let local = (past.local + span.len()).min(graph::kept(self.text.window));
        Ok(Past { length: past.length + span.len(), local, values })
    }

    /// Rotations and masks, the same for every row.
    fn tables(&self, rows: usize, length: usize, past: &Past) -> ort::Result<Inputs> {
        // Local layers hold fewer positions; what a position sees of those is where they are from it.
        let span = |past: usize| Span { past, length, image: 0..0 };
        let mut inputs = Vec::with_capacity(12);
        for (kind, held, [cos, sin, mask]) in [
            (LayerKind::Global, past.length, [tables::GLOBAL_COS, tables::GLOBAL_SIN, tables::GLOBAL_MASK]),
            (LayerKind::Local, past.local, [tables::LOCAL_COS, tables::LOCAL_SIN, tables::LOCAL_MASK]),
        ] {
            let [cosines, sines] = span(past.length).rotations(rope(&self.text, kind), self.text.head_dim);
            let seen = span(held).mask(kind, self.text.window);
            let turned = [length, self.text.head_dim / 2];
            inputs.push((cos, Tensor::from_array((turned, cosines))?.into_dyn()));
            inputs.push((sin, Tensor::from_array((turned, sines))?.into_dyn()));
            inputs.push((mask, Tensor::from_array(([length, held + length], seen))?.into_dyn()));
        }
        let every: Vec<i64> = (0..rows).flat_map(|_| (0..length).map(|at| at as i64)).collect();
        inputs.push((tables::ROWS, Tensor::from_array(([rows, length], every))?.into_dyn()));
        Ok(inputs)
    }

    /// What each row brings itself: its tokens, what they count for, and where it ends.
    fn rows(&self, rows: &[Row<'_>], span: &Range<usize>) -> ort::Result<Inputs> {
        let (count, length) = (rows.len(), span.len());
        let mut ids = Vec::with_capacity(count * length);
        for row in rows {
            let here = row.ids.iter().skip(span.start).take(length).map(|id| i64::from(*id));
            ids.extend(here.chain(std::iter::repeat(0)).take(length));
        }
        let mut inputs = vec![(graph::IDS, Tensor::from_array(([count, length], ids))?.into_dyn())];
        if !self.reads.taps.is_empty() {
            let most = most_pools(rows);
            let mut weights = vec![0f32; count * most * length];
            let of_rows = weights.chunks_exact_mut((most * length).max(1));
            for (row, weights) in rows.iter().zip(of_rows) {
                for (pool, weights) in row.pools.iter().zip(weights.chunks_exact_mut(length.max(1))) {
                    let each = weights.iter_mut().zip(span.clone());
                    each.for_each(|(weight, at)| *weight = pool.pooling.weight(at, &pool.tokens));
                }
            }
            let shape = [count, most, length];
            inputs.push((graph::POOLING, Tensor::from_array((shape, weights))?.into_dyn()));
        }
        if !self.reads.answers.is_empty() {
            let ends = rows.iter().enumerate().map(|(at, row)| {
                // A row that ends elsewhere is not read from here; its first position stands in.
                let end = row.ends_in(span).map_or(0, |end| end - span.start);
                (at * length + end) as i64
            });
            inputs.push((tables::LAST, Tensor::from_array(([count], ends.collect::<Vec<_>>()))?.into_dyn()));
        }
        Ok(inputs)
    }

    /// Adds what a pass gave to what the passes before it gave.
    fn add(
        &self,
        outputs: &SessionOutputs<'_>,
        rows: &[Row<'_>],
        span: &Range<usize>,
        totals: &mut [Total],
    ) -> ort::Result<()> {
        let (most, hidden) = (most_pools(rows), self.text.hidden);
        for tap in 0..self.reads.taps.len() {
            let Some(sums) = outputs.get(graph::pooled_name(tap)) else { continue };
            let (_, sums) = sums.try_extract_tensor::<f32>()?;
            for ((total, row), sums) in totals.iter_mut().zip(rows).zip(sums.chunks(most * hidden)) {
                let one_tap = row.pools.len() * hidden;
                let total = total.pooled.iter_mut().skip(tap * one_tap).take(one_tap);
                total.zip(sums).for_each(|(total, sum)| *total += f64::from(*sum));
            }
        }
        if !self.reads.answers.is_empty()
            && let Some(logits) = outputs.get(tables::LOGITS)
        {
            let (_, logits) = logits.try_extract_tensor::<f32>()?;
            let logits = logits.chunks(self.reads.answers.len());
            for ((total, row), logits) in totals.iter_mut().zip(rows).zip(logits) {
                if row.ends_in(span).is_some() {
                    total.logits = logits.to_vec();
                }
            }
        }
        Ok(())
    }
}

/// Inputs of a pass, with their names.
type Inputs = Vec<(&'static str, DynValue)>;

/// What the passes so far gave for one row.
struct Total {
    /// In double precision: a long text has many pieces.
    pooled: Vec<f64>,
    logits: Vec<f32>,
}

impl Total {
    fn reading(self, row: &Row<'_>) -> Reading {
        let pooled = self.pooled.into_iter().map(|sum| sum as f32).collect();
        Reading { pools: row.pools.clone(), pooled, logits: self.logits }
    }
}

/// Rows with fewer pools are filled up with nothing.
fn most_pools(rows: &[Row<'_>]) -> usize {
    rows.iter().map(|row| row.pools.len()).max().unwrap_or_default()
}

impl Row<'_> {
    /// The row's last position, if it is one of these.
    fn ends_in(&self, span: &Range<usize>) -> Option<usize> {
        self.ids.len().checked_sub(1).filter(|end| span.contains(end))
    }
}

impl Pooling {
    fn weight(self, at: usize, tokens: &Range<usize>) -> f32 {
        match self {
            Self::Mean if tokens.contains(&at) => 1.0 / tokens.len() as f32,
            Self::Last if at + 1 == tokens.end => 1.0,
            Self::Mean | Self::Last => 0.0,
        }
    }
}

fn rope(text: &TextConfig, kind: LayerKind) -> Rope {
    match kind {
        LayerKind::Global => text.global_rope,
        LayerKind::Local => text.local_rope,
    }
}
