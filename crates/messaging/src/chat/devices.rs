//! The devices that a person wants pushes on (contract section 2, `/api/devices`).

use serde::Serialize;

use super::{Chat, input::Fields};
use crate::{
    clock::Timestamp,
    errors::Result,
    identity::Caller,
    notify::Subscription,
    outbound::Reach,
    storage::devices::{DeviceRow, KnownDevice, NewDevice},
};

/// Tokens of push services have a few hundred characters; the longest are subscriptions of browsers.
const MAX_TOKEN: usize = 4096;
/// Names of devices and versions.
const MAX_NAME: usize = 200;

/// A device as its owner sees it; never its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Device")]
pub struct DeviceView {
    /// The registration.
    pub id: i64,
    /// `android`, `ios` or `web`.
    #[schemars(extend("enum" = ["android", "ios", "web"]))]
    pub device_type: String,
    /// What the app calls the device.
    pub device_id: Option<String>,
    /// The app's version.
    pub app_version: Option<String>,
    /// When it was registered first.
    pub created_at: Timestamp,
    /// When the app last said that it is there.
    pub last_used_at: Timestamp,
}

impl From<DeviceRow> for DeviceView {
    fn from(row: DeviceRow) -> Self {
        Self {
            id: row.id,
            device_type: row.device_type,
            device_id: row.device_id,
            app_version: row.app_version,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        }
    }
}

/// A device to register.
pub struct RegisterDevice(NewDevice);

impl RegisterDevice {
    /// Reads a request body `{token, device_type, device_id?, app_version?}`.
    pub fn parse(json: &str) -> Result<Self> {
        let mut fields = Fields::parse(json)?;
        let token = required_name(&mut fields, "token", MAX_TOKEN);
        let device_type = match fields.text("device_type").as_deref() {
            Some("android") => Some("android"),
            Some("ios") => Some("ios"),
            Some("web") => Some("web"),
            _ => {
                fields
                    .refuse("device_type", "The selected device_type is invalid: it is android, ios or web.");
                None
            }
        };
        if let (Some(token), Some("web")) = (&token, device_type)
            && token.starts_with('{')
            && Subscription::parse(token, Reach::Any).is_none()
        {
            fields.refuse(
                "token",
                "The token field must be a push subscription with endpoint, keys.p256dh and keys.auth.",
            );
        }
        let device_id = name(&mut fields, "device_id", MAX_NAME);
        let app_version = name(&mut fields, "app_version", MAX_NAME);
        let device = token
            .zip(device_type)
            .map(|(token, device_type)| Self(NewDevice { token, device_type, device_id, app_version }));
        fields.finish(device)
    }
}

/// A device to forget.
pub struct ForgetDevice(KnownDevice);

impl ForgetDevice {
    /// Reads a request body `{token}`, or `{device_id}` from an app that has lost its token.
    pub fn parse(json: &str) -> Result<Self> {
        let mut fields = Fields::parse(json)?;
        let has_token = fields.value("token").is_some() || fields.value("device_id").is_none();
        let device = if has_token {
            // Not needed, but what is sent must be what it says it is.
            name(&mut fields, "device_id", MAX_NAME);
            required_name(&mut fields, "token", MAX_TOKEN).map(KnownDevice::Token)
        } else {
            required_name(&mut fields, "device_id", MAX_NAME).map(KnownDevice::DeviceId)
        };
        fields.finish(device.map(Self))
    }
}

fn required_name(fields: &mut Fields, field: &'static str, max: usize) -> Option<String> {
    let is_given = fields.value(field).is_some();
    let text = name(fields, field, max);
    if !is_given {
        fields.refuse(field, format!("The {field} field is required."));
    }
    text
}

/// A text that is there for machines: short, and without controls.
fn name(fields: &mut Fields, field: &'static str, max: usize) -> Option<String> {
    let text = fields.text(field)?;
    let text = text.trim();
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        fields.refuse(field, format!("The {field} field must be a text of at most {max} bytes."));
        return None;
    }
    Some(text.to_owned())
}

impl Chat {
    /// Registers a device of the caller. Answers it and whether it is new to them: a token that was
    /// somebody else's moves to the caller, past twenty the one that was silent longest is forgotten.
    pub async fn register_device(
        &self,
        caller: &Caller,
        request: &RegisterDevice,
    ) -> Result<(DeviceView, bool)> {
        let (row, is_new) = self.inner.store.register_device(caller.user_id, &request.0).await?;
        if let Some(notifier) = self.notifier() {
            notifier.devices_changed(caller.user_id);
        }
        Ok((row.into(), is_new))
    }

    /// The caller's devices, the one used last first.
    pub async fn list_devices(&self, caller: &Caller) -> Result<Vec<DeviceView>> {
        let rows = self.inner.store.devices(caller.user_id).await?;
        Ok(rows.into_iter().map(DeviceView::from).collect())
    }

    /// Forgets a device of the caller. Answers whether there was one; somebody else's stays.
    pub async fn forget_device(&self, caller: &Caller, request: &ForgetDevice) -> Result<bool> {
        Ok(self.inner.store.forget_device(caller.user_id, &request.0).await?)
    }
}
