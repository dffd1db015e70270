//! The devices that a person wants pushes on.

use sqlx::FromRow;

use super::{Result, Store, in_transaction, on, retried};
use crate::{clock::Timestamp, ids::UserId};

/// Devices of one person; past it the one that was silent longest is forgotten.
pub const MAX_DEVICES: i64 = 20;

/// A device, without its token.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DeviceRow {
    /// The registration.
    pub id: i64,
    /// `android`, `ios` or `web`.
    pub device_type: String,
    /// What the app calls the device.
    pub device_id: Option<String>,
    /// The app's version.
    pub app_version: Option<String>,
    /// When this person registered it first.
    pub created_at: Timestamp,
    /// When the app last said that it is there.
    pub last_used_at: Timestamp,
}

/// A device to register.
#[derive(Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// What the push service knows it by; one token belongs to one person.
    pub token: String,
    /// `android`, `ios` or `web`.
    pub device_type: &'static str,
    /// What the app calls the device: a new token of the same device replaces the old one.
    pub device_id: Option<String>,
    /// The app's version.
    pub app_version: Option<String>,
}

/// A device to forget, by what the app knows of it.
#[derive(Clone, PartialEq, Eq)]
pub enum KnownDevice {
    /// Its token.
    Token(String),
    /// What the app calls it.
    DeviceId(String),
}

impl Store {
    /// Registers a device for a person. Answers it and whether it is new to them.
    pub async fn register_device(&self, user: UserId, device: &NewDevice) -> Result<(DeviceRow, bool)> {
        retried(|| self.try_register_device(user, device)).await
    }

    async fn try_register_device(&self, user: UserId, device: &NewDevice) -> Result<(DeviceRow, bool)> {
        let now = self.clock.now();
        Ok(in_transaction!(self, connection => {
            let owner: Option<UserId> = sqlx::query_scalar("select user_id from devices where token = $1")
                .bind(&device.token)
                .fetch_optional(&mut *connection)
                .await?;
            sqlx::query("delete from devices where user_id = $1 and device_id = $2 and token <> $3")
                .bind(user)
                .bind(&device.device_id)
                .bind(&device.token)
                .execute(&mut *connection)
                .await?;
            // Somebody else on the same device from now on: the token goes with them.
            let registered: DeviceRow = sqlx::query_as(
                "insert into devices as d
                     (user_id, token, device_type, device_id, app_version, created_at, last_used_at)
                 values ($1, $2, $3, $4, $5, $6, $6)
                 on conflict (token) do update set user_id = $1, device_type = $3, device_id = $4, app_version = $5,
                     created_at = case when d.user_id = $1 then d.created_at else $6 end, last_used_at = $6
                 returning id, device_type, device_id, app_version, created_at, last_used_at",
            )
            .bind(user)
            .bind(&device.token)
            .bind(device.device_type)
            .bind(&device.device_id)
            .bind(&device.app_version)
            .bind(now)
            .fetch_one(&mut *connection)
            .await?;
            sqlx::query(
                "delete from devices where user_id = $1 and id <> $2 and id not in
                     (select id from devices where user_id = $1 and id <> $2
                      order by last_used_at desc, id desc limit $3)",
            )
            .bind(user)
            .bind(registered.id)
            .bind(MAX_DEVICES - 1)
            .execute(&mut *connection)
            .await?;
            (registered, owner != Some(user))
        }))
    }

    /// A person's devices, the one used last first.
    pub async fn devices(&self, user: UserId) -> Result<Vec<DeviceRow>> {
        Ok(on!(self, read, pool => sqlx::query_as(
            "select id, device_type, device_id, app_version, created_at, last_used_at from devices
             where user_id = $1 order by last_used_at desc, id desc",
        )
        .bind(user)
        .fetch_all(pool)
        .await?))
    }

    /// Forgets a device of a person. Answers whether it was theirs.
    pub async fn forget_device(&self, user: UserId, device: &KnownDevice) -> Result<bool> {
        let (statement, value) = match device {
            KnownDevice::Token(token) => ("delete from devices where user_id = $1 and token = $2", token),
            KnownDevice::DeviceId(id) => ("delete from devices where user_id = $1 and device_id = $2", id),
        };
        on!(self, write, pool => {
            let gone = sqlx::query(statement).bind(user).bind(value).execute(pool).await?.rows_affected();
            Ok(gone > 0)
        })
    }
}
