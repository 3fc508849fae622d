//! Normalisations over the last axis.
//!
//! Gemma: `x / √(mean(x²) + ε) · (1 + w)` (transformers `Gemma3RMSNorm`); the `1 +` is a node where the
//! checkpoint does not have it, because the weights stay as they are. SigLIP: `(x − mean) / √(var + ε) · w + b` (`torch.nn.LayerNorm`).

use super::{Attribute, Dim, Graph, GraphError, Value};

fn width(x: &Value, path: &str) -> Result<usize, GraphError> {
    match x.dims.last() {
        Some(Dim::Is(size)) => Ok(*size as usize),
        _ => Err(GraphError::Node {
            node: path.to_owned(),
            reason: format!("{:?} has no fixed width", x.dims),
        }),
    }
}

/// `x ─ RMSNormalization ─`, scale ─ `1 + weight`.
pub(super) fn rms(
    graph: &mut Graph<'_>,
    path: &str,
    x: &Value,
    weight: &str,
    epsilon: f32,
) -> Result<Value, GraphError> {
    let scale = graph.norm_scale(path, weight, width(x, path)?)?;
    let attributes = vec![Attribute::Float("epsilon", epsilon), Attribute::Int("axis", -1)];
    graph.node(path, ("", "RMSNormalization"), &[x, &scale], (x.kind, x.dims.clone()), attributes)
}

/// `name` is the weights' path without `.weight` and `.bias`.
pub(super) fn layer(
    graph: &mut Graph<'_>,
    path: &str,
    x: &Value,
    name: &str,
    epsilon: f32,
) -> Result<Value, GraphError> {
    let width = width(x, path)?;
    let weight = graph.weight(&format!("{name}.weight"), &[width])?;
    let bias = graph.weight(&format!("{name}.bias"), &[width])?;
    let attributes = vec![Attribute::Float("epsilon", epsilon), Attribute::Int("axis", -1)];
    graph.node(path, ("", "LayerNormalization"), &[x, &weight, &bias], (x.kind, x.dims.clone()), attributes)
}
