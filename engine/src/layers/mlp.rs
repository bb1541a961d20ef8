//! Gated feed-forward block (arXiv:2002.05202): `down(f(gate(x)) * up(x))`.

use tokenmill_kernels::activation::Activation;

use crate::layers::{Linear, LinearSpec, WeightLoader};
use crate::load::LoadError;
use crate::ops::{Act, OpError, Ops, Rows};

/// Gate and up share one product, which joins them.
#[derive(Debug)]
pub struct GatedMlp {
    gate_up: Linear,
    down: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// Reads `name.{gate,up,down}_proj`.
    ///
    /// # Errors
    /// When a tensor is absent or has another shape, or the activation is unknown.
    pub fn load(
        loader: &mut WeightLoader<'_>,
        name: &str,
        [hidden, intermediate]: [usize; 2],
        activation: &str,
        bias: bool,
    ) -> Result<Self, LoadError> {
        let (gate, up) = (format!("{name}.gate_proj"), format!("{name}.up_proj"));
        let gate_up = loader.linear(
            &[
                LinearSpec { name: &gate, outputs: intermediate, bias },
                LinearSpec { name: &up, outputs: intermediate, bias },
            ],
            hidden,
        )?;
        let down = format!("{name}.down_proj");
        let down =
            loader.linear(&[LinearSpec { name: &down, outputs: hidden, bias }], intermediate)?;
        Ok(Self { gate_up, down, activation: activation_named(activation)? })
    }

    /// `x: [tokens, hidden]` to the same shape.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, ops: &mut dyn Ops, x: Act) -> Result<Act, OpError> {
        let inner = ops.alloc(Rows::Tokens, self.down.inputs());
        ops.gated_linear(&self.gate_up, self.activation, x, inner)?;
        let out = ops.alloc(Rows::Tokens, self.down.outputs());
        ops.linear(&self.down, inner, out)?;
        ops.free(inner);
        Ok(out)
    }
}

/// The activation that a configuration names.
///
/// # Errors
/// When the name is unknown.
pub(crate) fn activation_named(name: &str) -> Result<Activation, LoadError> {
    Ok(match name {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        other => {
            return Err(LoadError::Config {
                field: "hidden_act".to_owned(),
                reason: format!(
                    "{other:?} is not supported; supported: silu, gelu, gelu_pytorch_tanh, gelu_new, quick_gelu, relu"
                ),
            });
        }
    })
}
