//! Packed weights mean what the stored ones mean, to us and to ONNX Runtime.

use shieldgate_models::checkpoint::gguf::{Gguf, Packed, Stored};

use super::folder;

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
