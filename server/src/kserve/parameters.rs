//! Parameters of requests, inputs and outputs.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
}

/// Names and values, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(Vec<(String, Parameter)>);

impl Parameters {
    /// Adds one.
    pub fn push(&mut self, name: impl Into<String>, value: Parameter) {
        self.0.push((name.into(), value));
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of a name, when it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Parameter::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a name, when it is true or false.
    pub fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Parameter::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of a name, when it is a whole number of at least 0.
    pub fn whole(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Parameter::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Parameter;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a boolean")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Parameter, E> {
                Ok(Parameter::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Parameter, E> {
                Ok(Parameter::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Parameter, E> {
                let int = i64::try_from(value).map(Parameter::Int);
                Ok(int.unwrap_or(Parameter::Float(value as f64)))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Parameter, E> {
                Ok(Parameter::Float(value))
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Parameter, E> {
                Ok(Parameter::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Parameters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }
            fn visit_unit<E>(self) -> Result<Parameters, E> {
                Ok(Parameters::default())
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Parameters, M::Error> {
                let mut parameters = Parameters::default();
                while let Some((name, value)) = map.next_entry::<String, Option<Parameter>>()? {
                    value.into_iter().for_each(|value| parameters.push(name.clone(), value));
                }
                Ok(parameters)
            }
        }
        deserializer.deserialize_any(Read)
    }
}
