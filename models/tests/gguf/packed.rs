//! Packed weights mean what the stored ones mean, to us and to ONNX Runtime.

use std::path::PathBuf;

use anyhow::Context as _;
use ort::session::SessionInputValue;
use ort::value::Tensor;
use shieldgate_models::checkpoint::gguf::{Gguf, Packed, PackedForm, Stored};
use shieldgate_models::runtime::Runtime;

use super::{folder, runtime};

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// Relative L2 of the difference.
fn difference(packed: &Packed, numbers: &[f32]) -> f64 {
    let square = |sum: f64, number: f64| sum + number * number;
    let pairs = packed.dequantise().into_iter().zip(numbers);
    let error = pairs.map(|(a, b)| f64::from(a) - f64::from(*b)).fold(0.0, square);
    (error / numbers.iter().map(|number| f64::from(*number)).fold(0.0, square)).sqrt()
}

#[test]
fn packing_keeps_the_numbers() -> anyhow::Result<()> {
    for name in ["blocks.gguf", "tiny.gguf"] {
        let gguf = Gguf::open(&folder().join(name))?;
        for tensor in gguf.tensors() {
            let numbers = gguf.dequantise(tensor)?;
            let Some(packed) = gguf.pack(tensor)? else {
                assert!(matches!(tensor.stored, Stored::F32 | Stored::F16 | Stored::BF16));
                continue;
            };
            let blocks = numbers.len() / packed.form.block;
            assert_eq!([packed.rows, packed.columns], tensor.shape[..]);
            assert_eq!(packed.weights.len(), numbers.len() * packed.form.bits / 8);
            assert_eq!(packed.scales.len(), blocks);
            assert_eq!(packed.zero_points.len(), if packed.form.zero_points { blocks } else { 0 });
            match tensor.stored {
                Stored::Q4K | Stored::Q5K => {
                    let (difference, bound) = (difference(&packed, &numbers), 0.006);
                    assert!(difference < bound, "{}: {difference}", tensor.name);
                }
                _ => assert_eq!(bits(&packed.dequantise()), bits(&numbers), "{}", tensor.name),
            }
        }
    }
    Ok(())
}

/// What the operator `op` (and `input` to it) makes of the packed weights.
fn run(
    runtime: &Runtime,
    op: &str,
    packed: &Packed,
    name: &'static str,
    input: SessionInputValue<'static>,
) -> anyhow::Result<Vec<f32>> {
    let PackedForm { bits, block, zero_points } = packed.form;
    let suffix = if zero_points { "_zero_points" } else { "" };
    let graph: PathBuf = folder().join(format!("{op}_{bits}_{block}{suffix}.onnx"));
    let mut session = runtime.session_from_file(&graph)?;
    let (rows, blocks) = (packed.rows, packed.columns / block);
    let shape = match op {
        "MatMulNBits" => vec![rows, blocks, block * bits / 8],
        _ => vec![rows, packed.columns * bits / 8],
    };
    let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![
        (name, input),
        ("weights", Tensor::from_array((shape, packed.weights.clone()))?.into()),
        ("scales", Tensor::from_array(([rows, blocks], packed.scales.clone()))?.into()),
    ];
    if zero_points {
        let zero_points = Tensor::from_array(([rows, blocks], packed.zero_points.clone()))?;
        inputs.push(("zero_points", zero_points.into()));
    }
    let outputs = session.run(inputs)?;
    Ok(outputs["y"].try_extract_tensor::<f32>()?.1.to_vec())
}

#[test]
fn onnx_runtime_reads_the_packed_weights_as_we_do() -> anyhow::Result<()> {
    let runtime = runtime()?;
    let gguf = Gguf::open(&folder().join("blocks.gguf"))?;
    for name in ["Q4_0", "Q5_0", "Q8_0", "Q6_K", "Q4_K", "Q5_K"] {
        let packed = gguf.pack(gguf.tensor(name)?)?.context("quantised")?;
        let (rows, columns) = (packed.rows, packed.columns);
        let mut identity = vec![0f32; columns * columns];
        identity.iter_mut().step_by(columns + 1).for_each(|number| *number = 1.0);
        let identity = Tensor::from_array(([columns, columns], identity))?;
        let found = run(&runtime, "MatMulNBits", &packed, "x", identity.into())?;
        let expected = packed.dequantise();
        for (at, expected) in expected.iter().enumerate() {
            let found = found[at % columns * rows + at / columns];
            assert_eq!(found, *expected, "{name}, row {}, column {}", at / columns, at % columns);
        }
        if packed.form == (PackedForm { bits: 8, block: 32, zero_points: false }) {
            let order = Tensor::from_array(([3], vec![2i64, 0, 1]))?;
            let found = run(&runtime, "GatherBlockQuantized", &packed, "rows", order.into())?;
            let expected = [&expected[2 * columns..], &expected[..2 * columns]].concat();
            assert_eq!(found, expected, "{name}");
        }
    }
    Ok(())
}
