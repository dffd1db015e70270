//! The demo: stand-ins for the marketplace's main API and for Firebase, and the page with the two phones.
//!
//! It owns neither the service nor its settings: the `demo` subcommand starts [`start_main_api`],
//! points the service at its address and merges [`router`] into the service's own routes. The page
//! itself lives in `web/` and speaks the public API like any other client.

mod main_api;
mod page;
mod push_service;

pub use self::{
    main_api::{MainApi, Person, start as start_main_api},
    page::{PageConfig, PageUser, router},
    push_service::{PushService, start as start_push_service},
};
