//! Encryption of a push for one browser: aes128gcm (RFC 8188) with keys by RFC 8291.

use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand::{SecureRandom, SystemRandom},
};

/// One record holds it all, as push services demand.
const RECORD_SIZE: u32 = 4096;
/// A salt, the record's size, the length of a key, the key.
const HEADER: usize = 16 + 4 + 1 + PUBLIC_KEY;
/// The end of the record's data and the cipher's tag.
const OVERHEAD: usize = 1 + 16;
/// An uncompressed point of P-256.
pub(super) const PUBLIC_KEY: usize = 65;
/// The browser's secret.
pub(super) const AUTH: usize = 16;
/// The most bytes that fit into the one record, header included.
pub(super) const MAX_PLAIN: usize = RECORD_SIZE as usize - HEADER - OVERHEAD;

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Encrypts for the browser with this public key and secret. Fails if the key is no point of the curve
/// or the text is too long.
pub(super) fn encrypt(plain: &[u8], public_key: &[u8], auth: &[u8]) -> Result<Vec<u8>, Unspecified> {
    if plain.len() > MAX_PLAIN {
        return Err(Unspecified);
    }
    let random = SystemRandom::new();
    let own = EphemeralPrivateKey::generate(&ECDH_P256, &random)?;
    let own_public = own.compute_public_key()?;
    let mut salt = [0; 16];
    random.fill(&mut salt)?;

    let mut key_info = b"WebPush: info\0".to_vec();
    key_info.extend_from_slice(public_key);
    key_info.extend_from_slice(own_public.as_ref());
    let mut input = [0; 32];
    agree_ephemeral(own, &UnparsedPublicKey::new(&ECDH_P256, public_key), |shared| {
        derive(auth, shared, &key_info, &mut input)
    })??;
    let (mut key, mut nonce) = ([0; 16], [0; 12]);
    derive(&salt, &input, b"Content-Encoding: aes128gcm\0", &mut key)?;
    derive(&salt, &input, b"Content-Encoding: nonce\0", &mut nonce)?;

    let mut record = plain.to_vec();
    // The last record, without padding.
    record.push(2);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record)?;

    let mut body = Vec::with_capacity(HEADER + record.len());
    body.extend_from_slice(&salt);
    body.extend_from_slice(&RECORD_SIZE.to_be_bytes());
    body.push(u8::try_from(own_public.as_ref().len()).map_err(|_| Unspecified)?);
    body.extend_from_slice(own_public.as_ref());
    body.append(&mut record);
    Ok(body)
}

fn derive(salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]) -> Result<(), Unspecified> {
    let length = Length(output.len());
    Salt::new(HKDF_SHA256, salt).extract(input).expand(&[info], length)?.fill(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_no_point_is_refused() {
        assert!(encrypt(b"x", &[4; PUBLIC_KEY], &[0; AUTH]).is_err());
        assert!(encrypt(b"x", &[], &[0; AUTH]).is_err());
    }

    #[test]
    fn two_pushes_of_one_text_have_nothing_in_common() {
        let random = SystemRandom::new();
        let browser =
            EphemeralPrivateKey::generate(&ECDH_P256, &random).unwrap().compute_public_key().unwrap();
        let push = || encrypt(b"a text", browser.as_ref(), &[7; AUTH]).unwrap();
        let (one, other) = (push(), push());
        assert_eq!(one.len(), HEADER + OVERHEAD + 6);
        assert_ne!(one[..16], other[..16]);
        assert_ne!(one[HEADER..], other[HEADER..]);
        assert!(encrypt(&[0; MAX_PLAIN], browser.as_ref(), &[7; AUTH]).is_ok_and(|body| body.len() == 4096));
        assert!(encrypt(&[0; MAX_PLAIN + 1], browser.as_ref(), &[7; AUTH]).is_err());
    }
}
