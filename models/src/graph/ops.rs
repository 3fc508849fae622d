//! Single operations with their shape rules.

use super::{Attribute, Dim, Graph, GraphError, MICROSOFT, Type, Value};

/// One axis of a reshaped value.
pub(super) enum Axis {
    /// As the input's axis at the same place.
    Same,
    Is(usize),
    /// Whatever is left; named for the graph that follows.
    Rest(Dim),
}

fn refuse<T>(node: &str, reason: String) -> Result<T, GraphError> {
    Err(GraphError::Node { node: node.to_owned(), reason })
}

/// Two axes after broadcasting; lengths that only a run knows must have one name.
fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], axis: usize| {
        (axis + dims.len()).checked_sub(rank).and_then(|axis| dims.get(axis).copied()).unwrap_or(Dim::Is(1))
    };
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (one, other) if one == other => Some(one),
            (Dim::Is(1), other) | (other, Dim::Is(1)) => Some(other),
            _ => None,
        })
        .collect()
}

impl Graph<'_> {
    pub(super) fn add(&mut self, path: &str, a: &Value, b: &Value) -> Result<Value, GraphError> {
        self.elementwise(path, "Add", a, b)
    }

    pub(super) fn mul(&mut self, path: &str, a: &Value, b: &Value) -> Result<Value, GraphError> {
        self.elementwise(path, "Mul", a, b)
    }

    fn elementwise(
        &mut self,
        path: &str,
        op: &'static str,
        a: &Value,
        b: &Value,
    ) -> Result<Value, GraphError> {
        let Some(dims) = broadcast(&a.dims, &b.dims).filter(|_| a.kind == b.kind) else {
            return refuse(path, format!("{op} of {:?} {:?} and {:?} {:?}", a.kind, a.dims, b.kind, b.dims));
        };
        self.node(path, ("", op), &[a, b], (a.kind, dims), vec![])
    }

    /// To single precision.
    pub(super) fn widen(&mut self, path: &str, value: &Value) -> Result<Value, GraphError> {
        let to = Attribute::Int("to", i64::from(Type::F32.number()));
        self.node(path, ("", "Cast"), &[value], (Type::F32, value.dims.clone()), vec![to])
    }

    /// `x · wᵀ` with w as checkpoints store it, [out, in]: prepacked by ONNX Runtime, never transposed in memory.
    pub(super) fn linear(&mut self, path: &str, x: &Value, w: &Value) -> Result<Value, GraphError> {
        let (&[out, input], Some((last, before))) = (w.dims.as_slice(), x.dims.split_last()) else {
            return refuse(path, format!("linear of {:?} by {:?}", x.dims, w.dims));
        };
        if *last != input {
            return refuse(path, format!("linear of {:?} by {:?}", x.dims, w.dims));
        }
        let dims = [before, &[out]].concat();
        self.node(
            path,
            (MICROSOFT, "FusedMatMul"),
            &[x, w],
            (Type::F32, dims),
            vec![Attribute::Int("transB", 1)],
        )
    }

    /// `x · w` with w [in, out].
    pub(super) fn matmul(&mut self, path: &str, x: &Value, w: &Value) -> Result<Value, GraphError> {
        let (&[input, out], Some((last, before))) = (w.dims.as_slice(), x.dims.split_last()) else {
            return refuse(path, format!("product of {:?} and {:?}", x.dims, w.dims));
        };
        if *last != input {
            return refuse(path, format!("product of {:?} and {:?}", x.dims, w.dims));
        }
        let dims = [before, &[out]].concat();
        self.node(path, ("", "MatMul"), &[x, w], (Type::F32, dims), vec![])
    }

    /// Weighted sums of rows: `weights` [batch, sums, rows] · `x` [batch, rows, width].
    pub(super) fn sums(&mut self, path: &str, weights: &Value, x: &Value) -> Result<Value, GraphError> {
        match (weights.dims.as_slice(), x.dims.as_slice()) {
            (&[batch, sums, rows], &[other, length, width]) if (batch, rows) == (other, length) => {
                self.node(path, ("", "MatMul"), &[weights, x], (Type::F32, vec![batch, sums, width]), vec![])
            }
            _ => refuse(path, format!("sums by {:?} of {:?}", weights.dims, x.dims)),
        }
    }

    pub(super) fn transpose(&mut self, path: &str, x: &Value, order: &[usize]) -> Result<Value, GraphError> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.dims.len()) {
            return refuse(path, format!("axes {order:?} of {:?}", x.dims));
        }
        let dims = order.iter().map(|axis| x.dims[*axis]).collect();
        let order = order.iter().map(|axis| *axis as i64).collect();
        self.node(path, ("", "Transpose"), &[x], (x.kind, dims), vec![Attribute::Ints("perm", order)])
    }

    pub(super) fn reshape(&mut self, path: &str, x: &Value, axes: &[Axis]) -> Result<Value, GraphError> {
        let mut dims = Vec::with_capacity(axes.len());
        let mut shape = Vec::with_capacity(axes.len());
        for (at, axis) in axes.iter().enumerate() {
            let (dim, number) = match axis {
                Axis::Same => match x.dims.get(at) {
                    Some(dim) => (*dim, 0),
                    None => return refuse(path, format!("{:?} has no axis {at}", x.dims)),
                },
                Axis::Is(size) => (Dim::from(*size), *size as i64),
                Axis::Rest(dim) => (*dim, -1),
            };
            dims.push(dim);
            shape.push(number);
        }
        let count = |dims: &[Dim]| {
            dims.iter().try_fold(1i64, |product, dim| match dim {
                Dim::Is(size) => product.checked_mul(*size),
                Dim::Named(_) => None,
            })
        };
        if let (Some(before), Some(after)) = (count(&x.dims), count(&dims))
            && before != after
        {
            return refuse(path, format!("{:?} reshaped to {dims:?}", x.dims));
        }
        let shape = self.ints(&format!("{path}/shape"), &shape, &[axes.len()])?;
        self.node(path, ("", "Reshape"), &[x, &shape], (x.kind, dims), vec![])
    }

    /// Rows of `table` [rows, …] by number.
    pub(super) fn gather(&mut self, path: &str, table: &Value, rows: &Value) -> Result<Value, GraphError> {
        let Some((_, tail)) = table.dims.split_first().filter(|_| rows.kind == Type::I64) else {
            return refuse(path, format!("rows {:?} of {:?}", rows.kind, table.dims));
        };
        let dims = [rows.dims.as_slice(), tail].concat();
        self.node(path, ("", "Gather"), &[table, rows], (table.kind, dims), vec![Attribute::Int("axis", 0)])
    }

    /// Joins along axis 1; `length` names the sum.
    pub(super) fn concat(&mut self, path: &str, parts: &[&Value], length: Dim) -> Result<Value, GraphError> {
        let Some(first) = parts.first().filter(|first| first.dims.len() > 1) else {
            return refuse(path, "nothing to join".to_owned());
        };
        let apart = |value: &Value| {
            (value.kind, value.dims.first().copied(), value.dims.get(2..).map(<[Dim]>::to_vec))
        };
        if parts.iter().any(|part| apart(part) != apart(first)) {
            return refuse(
                path,
                format!("{:?} joined", parts.iter().map(|part| &part.dims).collect::<Vec<_>>()),
            );
        }
        let mut dims = first.dims.clone();
        dims[1] = length;
        self.node(path, ("", "Concat"), parts, (first.kind, dims), vec![Attribute::Int("axis", 1)])
    }

    /// `cap · tanh(x / cap)`.
    pub(super) fn capped(&mut self, path: &str, x: &Value, cap: f32) -> Result<Value, GraphError> {
        let number = self.floats(&format!("{path}/cap"), &[cap], &[1])?;
        let like_x = (x.kind, x.dims.clone());
        let part = self.node(&format!("{path}/part"), ("", "Div"), &[x, &number], like_x.clone(), vec![])?;
        let bent = self.node(&format!("{path}/tanh"), ("", "Tanh"), &[&part], like_x, vec![])?;
        self.mul(path, &bent, &number)
    }

    pub(super) fn gelu(
        &mut self,
        path: &str,
        x: &Value,
        approximate: &'static str,
    ) -> Result<Value, GraphError> {
        let how = Attribute::Text("approximate", approximate);
        self.node(path, ("", "Gelu"), &[x], (x.kind, x.dims.clone()), vec![how])
    }
}
