//! Runs the decoder graph: prompts from their first token on, a row an image; or many suffixes over the keys
//! and values of such prefixes.
//!
//! Keys and values stay ONNX Runtime's own: a prefix's go from the outputs of one run into the inputs of
//! the next, and are repeated for the rows that continue them inside the graph.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use ort::memory::Allocator;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor};

use crate::checkpoint::config::{LayerKind, TextConfig};
use crate::graph::decoder as graph;
use crate::graph::decoder::Part;
use crate::judges::positions::{Span, Tables};
use crate::runtime::{failure, stoppable};
use crate::{Failure, Stop};

pub(super) struct Decoder {
    text: TextConfig,
    /// `run` wants it exclusively.
    session: Mutex<Session>,
    nothing: Past,
}

/// A prompt's first tokens, the same for several images.
pub(super) struct Start<'a> {
    /// May end before the prompt does.
    pub(super) ids: &'a [u32],
    /// Where the image is among them.
    pub(super) image: Range<usize>,
    /// Images.
    pub(super) rows: usize,
}

/// Keys and values of a prompt's first positions, layer by layer, for each of several images.
pub(super) struct Past {
    /// Images.
    rows: usize,
    length: usize,
    values: KeysAndValues,
}

/// With the names of the inputs they go into.
type KeysAndValues = Vec<(String, DynValue)>;

/// The logits of Yes and No.
pub(super) type Logits = [f32; 2];

impl Decoder {
    pub(super) fn new(session: Session, text: TextConfig) -> ort::Result<Self> {
        let shape = [1, text.kv_heads, 0, text.head_dim];
        let mut values = Vec::with_capacity(2 * text.layers.len());
        for layer in 0..text.layers.len() {
            for part in Part::BOTH {
                let empty = Tensor::<f32>::new(&Allocator::default(), shape)?;
                values.push((graph::past_name(layer, part), empty.into_dyn()));
            }
        }
        Ok(Self { text, session: Mutex::new(session), nothing: Past { rows: 1, length: 0, values } })
    }

    /// A prompt from its first token on, the image included; for each image its logits.
    pub(super) fn first(
        &self,
        start: &Start<'_>,
        features: &DynValue,
        stop: &Stop,
    ) -> Result<(Vec<Logits>, Past), Failure> {
        let Start { ids, image, rows } = start;
        let outside = || Failure::Runtime("the image lies outside the tokens".to_owned());
        let before = ids.get(..image.start).ok_or_else(outside)?;
        let after = ids.get(image.end..).ok_or_else(outside)?;
        let span = Span { past: 0, length: ids.len(), image: image.clone() };
        let for_each = |ids: &[u32]| -> ort::Result<DynValue> {
            numbers([*rows, ids.len()], std::iter::repeat_n(widened(ids), *rows).flatten().collect())
        };
        let tensors = || -> ort::Result<[DynValue; 2]> { Ok([for_each(before)?, for_each(after)?]) };
        let [before, after] = tensors().map_err(|error| failure(&error, stop))?;
        let embedded = [
            (graph::BEFORE, SessionInputValue::from(&before)),
            (graph::FEATURES, SessionInputValue::from(features)),
            (graph::AFTER, SessionInputValue::from(&after)),
        ];
        let lengths = vec![ids.len(); *rows];
        let (logits, values) = self.run(embedded, &span, &lengths, &self.nothing, stop)?;
        Ok((logits, Past { rows: *rows, length: ids.len(), values }))
    }

    /// The ends of several prompts, none empty, for each image of `past`: all of the first image, then all
    /// of the second.
    pub(super) fn rest(
        &self,
        suffixes: &[&[u32]],
        image: Range<usize>,
        past: &Past,
        stop: &Stop,
    ) -> Result<Vec<Logits>, Failure> {
        let for_each = || std::iter::repeat_n(suffixes, past.rows).flatten();
        let lengths: Vec<usize> = for_each().map(|suffix| suffix.len()).collect();
        let (rows, length) = (lengths.len(), lengths.iter().copied().max().unwrap_or_default());
        // Shorter rows are filled up behind their end, where causality keeps it from being seen.
        let mut ids = Vec::with_capacity(rows * length);
        for suffix in for_each() {
            ids.extend(widened(suffix));
            ids.extend(std::iter::repeat_n(0, length - suffix.len()));
        }
        let tensors = || -> ort::Result<[DynValue; 3]> {
            let no_image = Tensor::<f32>::new(&Allocator::default(), [rows, 0, self.text.hidden])?.into_dyn();
            Ok([numbers([rows, length], ids)?, no_image, numbers([rows, 0], vec![])?])
        };
        let [ids, no_image, after] = tensors().map_err(|error| failure(&error, stop))?;
        let embedded = [
            (graph::BEFORE, SessionInputValue::from(&ids)),
            (graph::FEATURES, SessionInputValue::from(&no_image)),
            (graph::AFTER, SessionInputValue::from(&after)),
        ];
        let span = Span { past: past.length, length, image };
        Ok(self.run(embedded, &span, &lengths, past, stop)?.0)
    }

    fn run(
        &self,
        embedded: [(&'static str, SessionInputValue<'_>); 3],
        span: &Span,
        lengths: &[usize],
        past: &Past,
        stop: &Stop,
    ) -> Result<(Vec<Logits>, KeysAndValues), Failure> {
        let fail = |error: ort::Error| failure(&error, stop);
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> =
            embedded.into_iter().map(|(name, value)| (name.into(), value)).collect();
        for (name, value) in self.tables(span, lengths).map_err(fail)? {
            inputs.push((name.into(), value.into()));
        }
        inputs.extend(past.values.iter().map(|(name, value)| (name.into(), SessionInputValue::from(value))));

        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        // After the lock: while another run held it, this one's time may have run out.
        let options = stoppable(stop)?;
        let mut outputs = session.run_with_options(inputs, &*options).map_err(fail)?;
        let logits = {
            let logits = outputs.get(graph::LOGITS);
            let logits = logits.ok_or_else(|| Failure::Runtime("no logits came back".to_owned()))?;
            let (_, numbers) = logits.try_extract_tensor::<f32>().map_err(fail)?;
            numbers.as_chunks().0.to_vec()
        };
        let mut values = Vec::with_capacity(past.values.len());
        for layer in 0..self.text.layers.len() {
            for part in Part::BOTH {
                let present = outputs.remove(graph::present_name(layer, part));
                let present =
                    present.ok_or_else(|| Failure::Runtime(format!("layer {layer} gave no keys")))?;
                values.push((graph::past_name(layer, part), present));
            }
        }
        Ok((logits, values))
    }

    /// Rotations, masks, and where each row ends.
    fn tables(&self, span: &Span, lengths: &[usize]) -> ort::Result<Vec<(&'static str, DynValue)>> {
        let (rows, length) = (lengths.len(), span.length);
        let global = Tables::of(span, LayerKind::Global, &self.text);
        let local = Tables::of(span, LayerKind::Local, &self.text);
        let mut inputs = Vec::with_capacity(8);
        for (table, [cos, sin, mask]) in [
            (global, [graph::GLOBAL_COS, graph::GLOBAL_SIN, graph::GLOBAL_MASK]),
            (local, [graph::LOCAL_COS, graph::LOCAL_SIN, graph::LOCAL_MASK]),
        ] {
            let turned = [length, self.text.head_dim / 2];
            inputs.push((cos, Tensor::from_array((turned, table.cos))?.into_dyn()));
            inputs.push((sin, Tensor::from_array((turned, table.sin))?.into_dyn()));
            inputs.push((mask, Tensor::from_array(([length, span.past + length], table.mask))?.into_dyn()));
        }
        let every = (0..rows).flat_map(|_| (0..length).map(|at| at as i64)).collect();
        inputs.push((graph::ROWS, numbers([rows, length], every)?));
        let last = lengths.iter().enumerate().map(|(row, end)| (row * length + end) as i64 - 1).collect();
        inputs.push((graph::LAST, numbers([rows], last)?));
        Ok(inputs)
    }
}

fn widened(ids: &[u32]) -> Vec<i64> {
    ids.iter().map(|id| i64::from(*id)).collect()
}

fn numbers<const N: usize>(shape: [usize; N], values: Vec<i64>) -> ort::Result<DynValue> {
    if values.is_empty() {
        // A vector without elements has no address that ONNX Runtime would take.
        return Ok(Tensor::<i64>::new(&Allocator::default(), shape)?.into_dyn());
    }
    Ok(Tensor::from_array((shape, values))?.into_dyn())
}
