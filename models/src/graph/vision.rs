//! The vision graph: normalised pictures in, their tokens for the decoder out.
//!
//! Reference: transformers `SiglipVisionModel` (last hidden state) and `Gemma3MultiModalProjector`.

use super::attention::{BATCH, Seeing, seeing};
use super::mlp::{Plain, plain};
use super::ops::Axis;
use super::{Attribute, Built, Graph, GraphError, Type, Value, norm};
use crate::checkpoint::config::Config;
use crate::checkpoint::weights::Weights;

pub const PIXELS: &str = "pixel_values";
pub const FEATURES: &str = "image_features";

/// ```text
/// pixels [batch, 3, side, side] ─ patches ─ + positions ─ layers ─ LayerNorm ─ pool ─ RMSNorm ─ projection ─
///                                                                  features [batch, tokens, hidden]
/// ```
pub fn build(config: &Config, weights: &Weights) -> Result<Built, GraphError> {
    let mut graph = Graph::new("vision", weights);
    let side = config.vision.image;
    let pixels = graph.input(PIXELS, Type::F32, &[BATCH, 3usize.into(), side.into(), side.into()])?;
    let mut x = embedded(&mut graph, config, &pixels)?;
    for at in 0..config.vision.layers {
        x = layer(&mut graph, config, at, &x)?;
    }
    let epsilon = config.vision.norm_epsilon;
    let x = norm::layer(&mut graph, "/vision/norm", &x, "vision_tower.post_layernorm", epsilon)?;
    let features = projected(&mut graph, config, &x)?;
    graph.output(FEATURES, &features)?;
    Ok(graph.finish())
}

/// `pixels ─ Conv(patch) ─ [batch, patches, hidden] ─ + position_embedding ─`
fn embedded(graph: &mut Graph<'_>, config: &Config, pixels: &Value) -> Result<Value, GraphError> {
    let vision = &config.vision;
    let (hidden, patch, side) = (vision.hidden, vision.patch, vision.patches());
    let name = "vision_tower.embeddings";
    let weight = graph.weight(&format!("{name}.patch_embedding.weight"), &[hidden, 3, patch, patch])?;
    let bias = graph.weight(&format!("{name}.patch_embedding.bias"), &[hidden])?;
    let patches = graph.node(
        "/vision/patches",
        ("", "Conv"),
        &[pixels, &weight, &bias],
        (Type::F32, vec![BATCH, hidden.into(), side.into(), side.into()]),
        vec![
            Attribute::Ints("kernel_shape", vec![patch as i64; 2]),
            Attribute::Ints("strides", vec![patch as i64; 2]),
        ],
    )?;
    let flat = [Axis::Same, Axis::Is(hidden), Axis::Is(side * side)];
    let flat = graph.reshape("/vision/patches_flat", &patches, &flat)?;
    let rows = graph.transpose("/vision/patches_rows", &flat, &[0, 2, 1])?;
    let positions = graph.weight(&format!("{name}.position_embedding.weight"), &[side * side, hidden])?;
    graph.add("/vision/positions", &rows, &positions)
}

/// ```text
/// x ┬ LayerNorm ─ attention ─ + ┬ LayerNorm ─ mlp ─ + ─
///   └─────────────────────────┘ └────────────────┘
/// ```
fn layer(graph: &mut Graph<'_>, config: &Config, at: usize, x: &Value) -> Result<Value, GraphError> {
    let vision = &config.vision;
    let (path, name) = (format!("/vision/layers.{at}"), format!("vision_tower.encoder.layers.{at}"));
    let epsilon = vision.norm_epsilon;
    let normed = norm::layer(graph, &format!("{path}/norm1"), x, &format!("{name}.layer_norm1"), epsilon)?;
    let attention_name = format!("{name}.self_attn");
    let shape = Seeing { name: &attention_name, hidden: vision.hidden, heads: vision.heads };
    let seen = seeing(graph, &format!("{path}/attention"), &normed, &shape)?;
    let x = graph.add(&format!("{path}/attended"), x, &seen)?;
    let normed = norm::layer(graph, &format!("{path}/norm2"), &x, &format!("{name}.layer_norm2"), epsilon)?;
    let mlp_name = format!("{name}.mlp");
    let shape =
        Plain { name: &mlp_name, hidden: vision.hidden, inner: vision.inner, activation: vision.activation };
    let thought = plain(graph, &format!("{path}/mlp"), &normed, &shape)?;
    graph.add(&format!("{path}/out"), &x, &thought)
}

/// `[batch, patches, hidden] ─ square ─ AveragePool ─ [batch, tokens, hidden] ─ RMSNorm ─ MatMul ─`
fn projected(graph: &mut Graph<'_>, config: &Config, x: &Value) -> Result<Value, GraphError> {
    let (hidden, side, pool) = (config.vision.hidden, config.vision.patches(), config.pool());
    let tokens = side / pool;
    let columns = graph.transpose("/projector/columns", x, &[0, 2, 1])?;
    let square = [Axis::Same, Axis::Is(hidden), Axis::Is(side), Axis::Is(side)];
    let square = graph.reshape("/projector/square", &columns, &square)?;
    let pooled = graph.node(
        "/projector/pool",
        ("", "AveragePool"),
        &[&square],
        (Type::F32, vec![BATCH, hidden.into(), tokens.into(), tokens.into()]),
        vec![
            Attribute::Ints("kernel_shape", vec![pool as i64; 2]),
            Attribute::Ints("strides", vec![pool as i64; 2]),
        ],
    )?;
    let flat = [Axis::Same, Axis::Is(hidden), Axis::Is(tokens * tokens)];
    let flat = graph.reshape("/projector/flat", &pooled, &flat)?;
    let rows = graph.transpose("/projector/rows", &flat, &[0, 2, 1])?;
    let weight = "multi_modal_projector.mm_soft_emb_norm.weight";
    let normed = norm::rms(graph, "/projector/norm", &rows, weight, config.vision.norm_epsilon)?;
    // Stored [in, out], unlike every other weight.
    let name = "multi_modal_projector.mm_input_projection_weight";
    let projection = graph.weight(name, &[hidden, config.text.hidden])?;
    graph.matmul("/projector/projection", &normed, &projection)
}
