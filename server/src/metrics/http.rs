//! Counts of the HTTP layer, by route.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::histogram::Histogram;

/// Buckets of `http_request_duration_seconds`.
const DURATION: &[f64] = &[0.1, 0.5, 1.0];
/// Buckets of `http_request_duration_highr_seconds`.
const DURATION_FINE: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0,
    7.5, 10.0, 30.0, 60.0,
];

/// One answered request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'a> {
    /// The route's pattern, `none` without one.
    pub(crate) handler: &'a str,
    pub(crate) method: &'a str,
    pub(crate) status: u16,
    pub(crate) duration: Duration,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
}

/// Sum and count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) sum: u64,
    pub(super) count: u64,
}

impl Sum {
    fn add(&mut self, value: u64) {
        self.sum = self.sum.saturating_add(value);
        self.count += 1;
    }
}

/// What is known of one handler and method.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) by_status: BTreeMap<&'static str, u64>,
    pub(super) duration: Histogram,
    request_bytes: Sum,
    response_bytes: Sum,
}

/// Counts of every route. Touched once per request.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    /// By handler and method.
    routes: Mutex<BTreeMap<String, BTreeMap<&'static str, Route>>>,
    pub(super) fine: Histogram,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self { routes: Mutex::default(), fine: Histogram::seconds(DURATION_FINE) }
    }
}

/// The class that the label `status` carries.
fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// Methods that get a label of their own; a client can make up others.
fn known_method(method: &str) -> &'static str {
    let known = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"];
    known.into_iter().find(|known| *known == method).unwrap_or("OTHER")
}

impl Default for Route {
    fn default() -> Self {
        Self {
            by_status: BTreeMap::new(),
            duration: Histogram::seconds(DURATION),
            request_bytes: Sum::default(),
            response_bytes: Sum::default(),
        }
    }
}

impl HttpMetrics {
    /// Counts an exchange.
    pub(crate) fn record(&self, exchange: Exchange<'_>) {
        let seconds = exchange.duration.as_secs_f64();
        self.fine.observe(seconds);
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        // A handler is new once; its name is not copied after that.
        if !routes.contains_key(exchange.handler) {
            routes.insert(exchange.handler.to_owned(), BTreeMap::new());
        }
        let methods = routes.get_mut(exchange.handler).expect("it was put in above");
        let route = methods.entry(known_method(exchange.method)).or_default();
        *route.by_status.entry(class(exchange.status)).or_default() += 1;
        route.duration.observe(seconds);
        route.request_bytes.add(exchange.request_bytes);
        route.response_bytes.add(exchange.response_bytes);
    }

    /// Calls `visit` with handler, method and counts of every route.
    pub(super) fn visit(&self, mut visit: impl FnMut(&str, &str, &Route)) {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        for (handler, methods) in routes.iter() {
            methods.iter().for_each(|(method, route)| visit(handler, method, route));
        }
    }

    /// Bodies received, by handler over all its methods.
    pub(super) fn request_sizes(&self) -> BTreeMap<String, Sum> {
        self.sizes(|route| route.request_bytes)
    }

    /// Bodies sent, by handler over all its methods.
    pub(super) fn response_sizes(&self) -> BTreeMap<String, Sum> {
        self.sizes(|route| route.response_bytes)
    }

    fn sizes(&self, of: impl Fn(&Route) -> Sum) -> BTreeMap<String, Sum> {
        let mut sizes: BTreeMap<String, Sum> = BTreeMap::new();
        self.visit(|handler, _, route| {
            let (total, more) = (sizes.entry(handler.to_owned()).or_default(), of(route));
            total.sum = total.sum.saturating_add(more.sum);
            total.count += more.count;
        });
        sizes
    }
}
