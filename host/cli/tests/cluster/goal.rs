//! Figures beside their goals.

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    /// Prints what was measured beside it: other programs use this machine too, so it fails nothing.
    pub(crate) fn print(self, what: &str, measured: f64) {
        let is_met = match self {
            Self::AtMost(most) => measured <= most,
            Self::AtLeast(least) => measured >= least,
        };
        let result = if is_met { "met" } else { "NOT MET" };
        println!("{what}: {measured:.2}; the goal is {self:?}: {result}");
    }
}
