//! The paths of the sandbox.

pub(super) enum Route<'a> {
    Portal,
    DevApi,
    Start,
    Pay(&'a str),
    Watch(&'a str),
    Faults,
    Complete(&'a str),
    Calls,
}

impl<'a> Route<'a> {
    pub(super) fn find(path: &'a str) -> Option<Self> {
        let segments: Vec<_> = path.split('/').skip(1).collect();
        Some(match segments[..] {
            [""] => Route::Portal,
            ["dev", "api"] => Route::DevApi,
            ["api", "start_payment"] => Route::Start,
            ["pay", code] => Route::Pay(code),
            ["watch", watch_code] => Route::Watch(watch_code),
            ["_sandbox", "faults"] => Route::Faults,
            ["_sandbox", "payments", code, "complete"] => Route::Complete(code),
            ["_sandbox", "calls"] => Route::Calls,
            _ => return None,
        })
    }

    pub(super) fn allowed(&self) -> &'static str {
        match self {
            Route::Start | Route::Complete(_) => "POST",
            Route::Pay(_) | Route::Faults => "GET, HEAD, POST",
            Route::Portal | Route::DevApi | Route::Watch(_) | Route::Calls => "GET, HEAD",
        }
    }
}
