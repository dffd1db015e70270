//! Families of counters and histograms whose labels come from short lists.
//!
//! Where all combinations are known they exist from the start, at zero, with their handles in an array:
//! a rate over them has a beginning, and counting is an index and an addition.

use std::array;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

type Labels = Vec<(&'static str, &'static str)>;
type OwnedLabels = Vec<(&'static str, String)>;

/// A counter without labels.
pub(super) fn counter(registry: &mut Registry, name: &'static str, help: &'static str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// A histogram without labels.
pub(super) fn histogram(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    buckets: &'static [f64],
) -> Histogram {
    let histogram = Histogram::new(buckets.iter().copied());
    registry.register(name, help, histogram.clone());
    histogram
}

/// A counter for each value of one label.
#[derive(Debug)]
pub(super) struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Counters<N> {
    pub(super) fn new(
        registry: &mut Registry,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: [&'static str; N],
    ) -> Self {
        let family = Family::<Labels, Counter>::default();
        registry.register(name, help, family.clone());
        Self(values.map(|value| family.get_or_create_owned(&vec![(label, value)])))
    }

    pub(super) fn add(&self, value: usize, by: u64) {
        if let Some(counter) = self.0.get(value) {
            counter.inc_by(by);
        }
    }
}

/// A counter for each pair of values of two labels.
#[derive(Debug)]
pub(super) struct Grid<const R: usize, const C: usize>([[Counter; C]; R]);

impl<const R: usize, const C: usize> Grid<R, C> {
    pub(super) fn new(
        registry: &mut Registry,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; 2],
        rows: [&'static str; R],
        columns: [&'static str; C],
    ) -> Self {
        let family = Family::<Labels, Counter>::default();
        registry.register(name, help, family.clone());
        Self(array::from_fn(|row| {
            array::from_fn(|column| {
                family.get_or_create_owned(&vec![(labels[0], rows[row]), (labels[1], columns[column])])
            })
        }))
    }

    pub(super) fn add(&self, row: usize, column: usize, by: u64) {
        if let Some(counter) = self.0.get(row).and_then(|row| row.get(column)) {
            counter.inc_by(by);
        }
    }
}

/// Counters that appear with their first count: most combinations of these labels never do. A count
/// costs a look into a small map, once a request.
#[derive(Debug)]
pub(super) struct LazyCounters<const N: usize> {
    family: Family<OwnedLabels, Counter>,
    labels: [&'static str; N],
}

impl<const N: usize> LazyCounters<N> {
    pub(super) fn new(
        registry: &mut Registry,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Self {
        let family = Family::default();
        registry.register(name, help, Family::clone(&family));
        Self { family, labels }
    }

    pub(super) fn add(&self, values: [&str; N]) {
        self.family.get_or_create(&owned(self.labels, values)).inc();
    }
}

/// Histograms that appear with their first observation.
#[derive(Debug)]
pub(super) struct Histograms<const N: usize> {
    family: Family<OwnedLabels, Histogram, fn() -> Histogram>,
    labels: [&'static str; N],
}

impl<const N: usize> Histograms<N> {
    pub(super) fn new(
        registry: &mut Registry,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        make: fn() -> Histogram,
    ) -> Self {
        let family = Family::new_with_constructor(make);
        registry.register(name, help, Family::clone(&family));
        Self { family, labels }
    }

    pub(super) fn observe(&self, values: [&str; N], value: f64) {
        self.family.get_or_create(&owned(self.labels, values)).observe(value);
    }
}

fn owned<const N: usize>(labels: [&'static str; N], values: [&str; N]) -> OwnedLabels {
    labels.into_iter().zip(values.into_iter().map(str::to_owned)).collect()
}
