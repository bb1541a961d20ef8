//! Rotary position frequencies and their scalings (arXiv:2104.09864), as `transformers` computes them.

use std::f32::consts::PI;
use std::sync::Arc;

use tokenmill_kernels::rope::RopeTable;

use crate::config::{ModelConfig, RopeScaling};

/// Cosines and sines of positions `0 .. positions` for the configuration's scaling.
///
/// "dynamic" scaling recomputes its base from the length of the sequence. Here the token at
/// position `p` uses the base of length `p + 1`, which is what incremental decoding with a cache
/// gives, and keeps the table a function of the position alone.
pub fn rope_table(config: &ModelConfig, positions: u32) -> Arc<RopeTable> {
    let scale = attention_factor(&config.rope_scaling);
    let fixed = frequencies(config);
    let RopeScaling::Dynamic { factor, original_max_position: original } = config.rope_scaling
    else {
        return Arc::new(RopeTable::new(&fixed, scale, positions as usize));
    };
    let angles = (0..positions).flat_map(|position| {
        let frequencies = if position < original {
            fixed.clone()
        } else {
            let base = dynamic_base(config, factor, original, position + 1);
            default_frequencies(base, config.rotary_dim)
        };
        frequencies.into_iter().map(move |frequency| position as f32 * frequency)
    });
    Arc::new(RopeTable::from_angles(angles, scale, config.rotary_dim / 2))
}

/// `theta^(-2i / dim)` for `i` in `0 .. dim / 2`.
fn default_frequencies(theta: f32, dim: usize) -> Vec<f32> {
    (0..dim).step_by(2).map(|i| 1.0 / theta.powf(i as f32 / dim as f32)).collect()
}

fn dynamic_base(config: &ModelConfig, factor: f32, original: u32, length: u32) -> f32 {
    let dim = config.rotary_dim as f32;
    let stretch = factor * length as f32 / original as f32 - (factor - 1.0);
    config.rope_theta * stretch.powf(dim / (dim - 2.0))
}

fn frequencies(config: &ModelConfig) -> Vec<f32> {
    let mut frequencies = default_frequencies(config.rope_theta, config.rotary_dim);
    match &config.rope_scaling {
        RopeScaling::None | RopeScaling::Dynamic { .. } => {}
        RopeScaling::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= factor),
        RopeScaling::Factors(factors) => {
            frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position,
        } => {
            let original = *original_max_position as f32;
            for f in &mut frequencies {
                let wavelength = 2.0 * PI / *f;
                if wavelength > original / low_freq_factor {
                    *f /= factor;
                } else if wavelength >= original / high_freq_factor {
                    let smooth = (original / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    *f = (1.0 - smooth) * *f / factor + smooth * *f;
                }
            }
        }
        RopeScaling::Yarn { .. } => yarn(config, &mut frequencies),
    }
    frequencies
}

/// YaRN: high frequencies extrapolate, low ones interpolate, a ramp between (arXiv:2309.00071).
fn yarn(config: &ModelConfig, frequencies: &mut [f32]) {
    let RopeScaling::Yarn { factor, original_max_position, beta_fast, beta_slow, truncate, .. } =
        config.rope_scaling
    else {
        return;
    };
    let dim = config.rotary_dim as f32;
    let correction = |rotations: f32| {
        dim * (original_max_position as f32 / (rotations * 2.0 * PI)).ln()
            / (2.0 * config.rope_theta.ln())
    };
    let (mut low, mut high) = (correction(beta_fast), correction(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    for (i, f) in frequencies.iter_mut().enumerate() {
        let ramp = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
        *f = *f / factor * ramp + *f * (1.0 - ramp);
    }
}

/// What cosines and sines are multiplied by: 1 but for YaRN.
fn attention_factor(scaling: &RopeScaling) -> f32 {
    let RopeScaling::Yarn { factor, attention_factor, mscale, .. } = scaling else {
        return 1.0;
    };
    let magnitude =
        |mscale: f32| if *factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    match (attention_factor, mscale) {
        (Some(given), _) => *given,
        (None, Some((mscale, all))) => magnitude(*mscale) / magnitude(*all),
        (None, None) => magnitude(1.0),
    }
}
