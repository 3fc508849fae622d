//! Lets several rows continue one past: keys and values are repeated inside the graph, never copied out.
//!
//! Prompts that begin alike are run once up to where they part, one row a picture; each of these pasts is
//! then continued by as many rows as there are policies. Rows of one picture stand together.

use super::attention::BATCH;
use super::{Attribute, Dim, Graph, GraphError, Type, Value};

/// Pasts, of one picture each.
pub(super) const GROUPS: Dim = Dim::Named("groups");

/// ```text
/// rows ─ Shape ─ batch ┬ Div ─ [1, batch / groups, 1, 1, 1]
/// past ┬ Shape ─ groups┘
///      └ Shape ─ length ─ [batch, kv_heads, length, head_dim]
/// ```
pub(super) struct Repeat {
    times: Value,
    shape: Value,
}

impl Repeat {
    /// `rows` [batch, length], `past` [groups, kv_heads, past, head_dim]: any one of the pasts.
    pub(super) fn new(
        graph: &mut Graph<'_>,
        path: &str,
        rows: &Value,
        past: &Value,
    ) -> Result<Self, GraphError> {
        let &[_, Dim::Is(heads), _, Dim::Is(size)] = past.dims.as_slice() else {
            let reason = format!("{:?} is no past", past.dims);
            return Err(GraphError::Node { node: path.to_owned(), reason });
        };
        let mut axis = |part: &str, of: &Value, at: i64| {
            let one = vec![Attribute::Int("start", at), Attribute::Int("end", at + 1)];
            graph.node(&format!("{path}/{part}"), ("", "Shape"), &[of], (Type::I64, vec![Dim::Is(1)]), one)
        };
        let batch = axis("batch", rows, 0)?;
        let groups = axis("groups", past, 0)?;
        let length = axis("length", past, 2)?;
        let counted = (Type::I64, vec![Dim::Is(1)]);
        let each = graph.node(&format!("{path}/each"), ("", "Div"), &[&batch, &groups], counted, vec![])?;
        let one = graph.ints(&format!("{path}/one"), &[1], &[1])?;
        let heads = graph.ints(&format!("{path}/heads"), &[heads], &[1])?;
        let size = graph.ints(&format!("{path}/size"), &[size], &[1])?;
        let mut joined = |part: &str, numbers: &[&Value]| {
            let result = (Type::I64, vec![Dim::from(numbers.len())]);
            let axis = vec![Attribute::Int("axis", 0)];
            graph.node(&format!("{path}/{part}"), ("", "Concat"), numbers, result, axis)
        };
        let times = joined("times", &[&one, &each, &one, &one, &one])?;
        let shape = joined("shape", &[&batch, &heads, &length, &size])?;
        Ok(Self { times, shape })
    }

    /// [groups, …] → [groups, 1, …] → [groups, batch / groups, …] → [batch, …].
    pub(super) fn apply(&self, graph: &mut Graph<'_>, path: &str, past: &Value) -> Result<Value, GraphError> {
        let &[groups, heads, length, size] = past.dims.as_slice() else {
            let reason = format!("{:?} is no past", past.dims);
            return Err(GraphError::Node { node: path.to_owned(), reason });
        };
        let second = graph.ints(&format!("{path}/axis"), &[1], &[1])?;
        let apart = vec![groups, Dim::Is(1), heads, length, size];
        let apart = graph.node(
            &format!("{path}/apart"),
            ("", "Unsqueeze"),
            &[past, &second],
            (past.kind, apart),
            vec![],
        )?;
        let wide = vec![groups, Dim::Named("each"), heads, length, size];
        let wide = graph.node(
            &format!("{path}/wide"),
            ("", "Expand"),
            &[&apart, &self.times],
            (past.kind, wide),
            vec![],
        )?;
        // An empty past has a length of 0, which without this would mean "as it was".
        let zeros = vec![Attribute::Int("allowzero", 1)];
        let rows = (past.kind, vec![BATCH, heads, length, size]);
        graph.node(path, ("", "Reshape"), &[&wide, &self.shape], rows, zeros)
    }
}
