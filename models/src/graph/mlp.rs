//! Feed-forward parts.
//!
//! Gemma: `down(gelu_tanh(gate(x)) · up(x))` (transformers `Gemma3MLP`). SigLIP: `fc2(gelu(fc1(x)))`, with
//! biases (`SiglipMLP`).

use super::{Graph, GraphError, Value};
use crate::checkpoint::config::Activation;

pub(super) struct Gated<'a> {
    /// The weights' path.
    pub(super) name: &'a str,
    pub(super) hidden: usize,
    pub(super) inner: usize,
}

/// ```text
/// x ┬ gate_proj ─ Gelu ┬ Mul ─ down_proj ─
///   └ up_proj ─────────┘
/// ```
pub(super) fn gated(
    graph: &mut Graph<'_>,
    path: &str,
    x: &Value,
    shape: &Gated<'_>,
) -> Result<Value, GraphError> {
    let Gated { name, hidden, inner } = *shape;
    let projected = |graph: &mut Graph<'_>, part: &str, x: &Value, shape| {
        graph.projected(&format!("{path}/{part}"), x, &format!("{name}.{part}.weight"), shape)
    };
    let gate = projected(graph, "gate_proj", x, [inner, hidden])?;
    let gate = graph.gelu(&format!("{path}/gelu"), &gate, "tanh")?;
    let up = projected(graph, "up_proj", x, [inner, hidden])?;
    let product = graph.mul(&format!("{path}/product"), &gate, &up)?;
    projected(graph, "down_proj", &product, [hidden, inner])
}

/// `x · wᵀ + b`; `name` is the weights' path without `.weight` and `.bias`.
pub(super) fn biased(
    graph: &mut Graph<'_>,
    path: &str,
    x: &Value,
    name: &str,
    [input, out]: [usize; 2],
) -> Result<Value, GraphError> {
    let product = graph.projected(path, x, &format!("{name}.weight"), [out, input])?;
    let bias = graph.weight(&format!("{name}.bias"), &[out])?;
    graph.add(&format!("{path}/bias"), &product, &bias)
}

pub(super) struct Plain<'a> {
    /// The weights' path.
    pub(super) name: &'a str,
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) activation: Activation,
}

/// `x ─ fc1 ─ Gelu ─ fc2 ─`
pub(super) fn plain(
    graph: &mut Graph<'_>,
    path: &str,
    x: &Value,
    shape: &Plain<'_>,
) -> Result<Value, GraphError> {
    let Plain { name, hidden, inner, activation } = *shape;
    let wide = biased(graph, &format!("{path}/fc1"), x, &format!("{name}.fc1"), [hidden, inner])?;
    let approximate = match activation {
        Activation::GeluTanh => "tanh",
        Activation::Gelu => "none",
    };
    let wide = graph.gelu(&format!("{path}/gelu"), &wide, approximate)?;
    biased(graph, &format!("{path}/fc2"), &wide, &format!("{name}.fc2"), [inner, hidden])
}
