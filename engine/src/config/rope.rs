//! The rotary embedding's base and scaling, from `rope_scaling` or `rope_parameters`.

use serde_json::{Map, Value};

use super::RopeScaling;
use super::fields::Fields;
use super::parse::MAX_POSITION;
use crate::load::LoadError;

/// Default of `rope_theta` in every supported family.
const DEFAULT_THETA: f32 = 10_000.0;
/// Largest known bases are some 1e9.
const MAX_THETA: f64 = 1e15;
/// A scaling beyond this would be a length beyond [`MAX_POSITION`].
const MAX_FACTOR: f64 = 1e6;

/// What the configuration says of the rotary embedding.
#[derive(Debug, PartialEq)]
pub(super) struct Rope {
    pub(super) theta: f32,
    pub(super) scaling: RopeScaling,
    /// Rotated part of a head.
    pub(super) partial: f32,
    /// Trained context length, with the scaling applied.
    pub(super) max_position: u32,
}

/// `max_position` is the length that the configuration writes.
pub(super) fn parse(config: &Map<String, Value>, max_position: u32) -> Result<Rope, LoadError> {
    let top = Fields::new(config);
    // transformers 5 writes everything in one object.
    let (field, prefix) = match top.get("rope_parameters") {
        Some(_) => ("rope_parameters", "rope_parameters."),
        None => ("rope_scaling", "rope_scaling."),
    };
    let empty = Map::new();
    let inner = match top.get(field) {
        None => &empty,
        Some(Value::Object(inner)) => inner,
        Some(other) => return Err(top.wrong(field, other, "an object")),
    };
    if inner.values().any(Value::is_object) {
        return Err(top.error(field, "parameters per kind of layer are not supported"));
    }
    let inner = Fields::nested(inner, prefix);
    let theta = inner.positive("rope_theta", MAX_THETA)?;
    let theta =
        theta.map_or_else(|| top.positive("rope_theta", MAX_THETA), |found| Ok(Some(found)))?;
    let partial = inner.positive("partial_rotary_factor", 1.0)?;
    let partial = partial
        .map_or_else(|| top.positive("partial_rotary_factor", 1.0), |found| Ok(Some(found)))?;
    let scaling = scaling(inner, max_position)?;
    let max_position = scaled_length(&scaling, max_position)
        .ok_or_else(|| inner.error("factor", format!("the length exceeds {MAX_POSITION}")))?;
    Ok(Rope {
        theta: theta.unwrap_or(DEFAULT_THETA),
        scaling,
        partial: partial.unwrap_or(1.0),
        max_position,
    })
}

fn scaling(fields: Fields<'_>, max_position: u32) -> Result<RopeScaling, LoadError> {
    let name = if fields.get("rope_type").is_some() { "rope_type" } else { "type" };
    let Some(kind) = fields.text(name)? else {
        return match fields.get("factor") {
            None => Ok(RopeScaling::None),
            Some(_) => Err(fields.error("rope_type", "a factor is given, but not the kind of it")),
        };
    };
    let factor = || {
        let factor = fields.positive("factor", MAX_FACTOR)?;
        match factor {
            Some(factor) if factor >= 1.0 => Ok(factor),
            Some(factor) => Err(fields.error("factor", format!("{factor} is below 1"))),
            None => Err(fields.error("factor", "the field is missing")),
        }
    };
    let original = || {
        let name = "original_max_position_embeddings";
        let length = fields.integer(name, 1..=u64::from(MAX_POSITION))?;
        Ok::<u32, LoadError>(length.map_or(max_position, |length| length as u32))
    };
    match kind {
        "default" | "none" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
        "dynamic" => {
            Ok(RopeScaling::Dynamic { factor: factor()?, original_max_position: original()? })
        }
        "llama3" => llama3(fields, factor()?, original()?),
        "yarn" => yarn(fields, factor()?, original()?),
        other => Err(fields.error(
            name,
            format!("{other} is not supported; supported: default, linear, dynamic, llama3, yarn"),
        )),
    }
}

fn llama3(fields: Fields<'_>, factor: f32, original: u32) -> Result<RopeScaling, LoadError> {
    let required = |name| {
        let value = fields.positive(name, MAX_FACTOR)?;
        value.ok_or_else(|| fields.error(name, "the field is missing"))
    };
    let (low, high) = (required("low_freq_factor")?, required("high_freq_factor")?);
    if low >= high {
        let reason = format!("{high} is not above low_freq_factor, {low}");
        return Err(fields.error("high_freq_factor", reason));
    }
    Ok(RopeScaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position: original,
    })
}

fn yarn(fields: Fields<'_>, factor: f32, original: u32) -> Result<RopeScaling, LoadError> {
    let number = |name| fields.positive(name, MAX_FACTOR);
    let beta_fast = number("beta_fast")?.unwrap_or(32.0);
    let beta_slow = number("beta_slow")?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        let reason = format!("{beta_fast} is below beta_slow, {beta_slow}");
        return Err(fields.error("beta_fast", reason));
    }
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position: original,
        beta_fast,
        beta_slow,
        attention_factor: number("attention_factor")?,
        mscale: number("mscale")?.zip(number("mscale_all_dim")?),
        truncate: fields.flag("truncate")?.unwrap_or(true),
    })
}

/// The factor multiplies the length. Llama 3 checkpoints write the extended length already; with
/// YaRN the factor applies to the original length, because some write the extended one.
fn scaled_length(scaling: &RopeScaling, max_position: u32) -> Option<u32> {
    let (length, factor) = match *scaling {
        RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {
            return Some(max_position);
        }
        RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor, .. } => {
            (max_position, factor)
        }
        RopeScaling::Yarn { factor, original_max_position, .. } => (original_max_position, factor),
    };
    let scaled = (f64::from(length) * f64::from(factor)).floor();
    (scaled <= f64::from(MAX_POSITION)).then_some(scaled as u32)
}
