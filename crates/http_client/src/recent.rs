use std::{collections::HashMap, hash::Hash};

/// How many values are kept: more than any server has providers, and few enough for their memory and descriptors.
const MOST: usize = 64;

/// Values that were used lately, by their keys. Anybody may ask for values under ever new keys, so the oldest goes.
pub struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    /// The number of uses so far, by which the oldest value is found.
    now: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), now: 0 }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    /// Returns the value of a key, made if need be. `may_go`: whether nobody uses a value just now.
    pub fn get(&mut self, key: K, make: impl FnOnce() -> V, may_go: impl Fn(&V) -> bool) -> V {
        let made = self.try_get(key, || Ok::<_, std::convert::Infallible>(make()), may_go);
        made.unwrap_or_else(|never| match never {})
    }

    /// Returns the value of a key as [`Self::get`] does, where making it may fail.
    pub fn try_get<E>(
        &mut self,
        key: K,
        make: impl FnOnce() -> Result<V, E>,
        may_go: impl Fn(&V) -> bool,
    ) -> Result<V, E> {
        self.now += 1;
        if let Some((value, used)) = self.entries.get_mut(&key) {
            *used = self.now;
            return Ok(value.clone());
        }
        let value = make()?;
        if self.entries.len() >= MOST {
            let idle = self.entries.iter().filter(|(_, (value, _))| may_go(value));
            let oldest = idle.min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.entries.remove(&key));
        }
        self.entries.insert(key, (value.clone(), self.now));
        Ok(value)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|(value, _)| value)
    }

    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_the_longest_goes() {
        let mut recent = Recent::default();
        for number in 0..MOST {
            recent.get(number, || number, |_| true);
        }
        recent.get(0, || unreachable!("it is there"), |_| true);
        recent.get(MOST, || MOST, |_| true);
        assert_eq!(recent.entries.len(), MOST);
        assert!(recent.entries.contains_key(&0) && !recent.entries.contains_key(&1));
    }

    #[test]
    fn what_is_in_use_stays() {
        let mut recent = Recent::default();
        for number in 0..2 * MOST {
            recent.get(number, || number, |value| *value % 2 == 1);
        }
        assert!((0..MOST).filter(|number| number % 2 == 0).all(|number| recent.entries.contains_key(&number)));
    }

    #[test]
    fn what_fails_is_not_kept() {
        let mut recent: Recent<u8, u8> = Recent::default();
        assert_eq!(recent.try_get(1, || Err("no"), |_| true), Err("no"));
        assert_eq!(recent.try_get(1, || Ok::<_, &str>(2), |_| true), Ok(2));
    }
}
