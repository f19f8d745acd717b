/// Implements the interface `settings` of a policy with its schema and its parser, and keeps what
/// the parser returns in the thread local `SETTINGS`, where the other calls find it.
///
/// The names `settings` and `Problem` must be those of the policy's bindings.
#[macro_export]
macro_rules! export_settings {
    ($policy:ty, $settings:ty, $schema:expr, $parse:path) => {
        ::std::thread_local! {
            static SETTINGS: ::std::cell::RefCell<Option<$settings>> =
                const { ::std::cell::RefCell::new(None) };
        }

        impl settings::Guest for $policy {
            fn schema() -> String {
                $schema.to_owned()
            }

            fn configure(json: String) -> Result<(), Vec<Problem>> {
                let to_contract = |problem: $crate::Problem| Problem {
                    path: problem.path,
                    message: problem.message,
                };
                let settings = $parse(&json).map_err(|problems| {
                    problems.into_iter().map(to_contract).collect::<Vec<_>>()
                })?;
                SETTINGS.set(Some(settings));
                Ok(())
            }
        }
    };
}
