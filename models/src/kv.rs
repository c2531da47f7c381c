//! Keys and values of one sequence, owned by that sequence.
//!
//! [`KvCache`] holds no tensors: plain rows that grow with the sequence, laid
//! out for [`crate::attention`]. The model decides what is written; a
//! position counts only once [`KvCache::advance`] has been called, so a failed
//! step leaves the cache as it was.

/// Keys that lie side by side in memory, so that one vector load takes several.
pub(crate) const KEY_BLOCK: usize = 16;

/// What one cached token consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub layers: usize,
    pub heads: usize,
    pub head_dim: usize,
}

impl KvShape {
    pub(crate) fn bytes_per_token(self) -> usize {
        2 * self.layers * self.heads * self.head_dim * size_of::<f32>()
    }
}

/// The attention state of one sequence.
///
/// Made by [`crate::Model::new_cache`], grown by [`crate::Model::forward`].
pub struct KvCache {
    shape: KvShape,
    layers: Vec<LayerCache>,
    len: usize,
}

/// One layer's keys and values.
pub(crate) struct LayerCache {
    /// `[position / KEY_BLOCK][head][head_dim][position % KEY_BLOCK]`
    keys: Vec<f32>,
    /// `[position][head][head_dim]`
    values: Vec<f32>,
}

impl KvCache {
    pub(crate) fn new(shape: KvShape) -> KvCache {
        let empty = || LayerCache {
            keys: Vec::new(),
            values: Vec::new(),
        };
        KvCache {
            shape,
            layers: (0..shape.layers).map(|_| empty()).collect(),
            len: 0,
        }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was read yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy that goes its own way, for several choices of one prompt.
    pub fn fork(&self) -> KvCache {
        let layers = self
            .layers
            .iter()
            .map(|l| l.copy(self.shape, self.len))
            .collect();
        KvCache {
            shape: self.shape,
            layers,
            len: self.len,
        }
    }

    /// Forgets every token from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `tokens` more.
    pub(crate) fn reserve(&mut self, tokens: usize) {
        let blocks = (self.len + tokens).div_ceil(KEY_BLOCK);
        let floats = blocks * KEY_BLOCK * self.shape.heads * self.shape.head_dim;
        for layer in &mut self.layers {
            for buffer in [&mut layer.keys, &mut layer.values] {
                if buffer.len() < floats {
                    if buffer.capacity() < floats {
                        let ahead = floats + floats / 4;
                        buffer.reserve_exact(ahead - buffer.len());
                    }
                    buffer.resize(floats, 0.0);
                }
            }
        }
    }

    /// Writes one layer's key and value rows (`[head][head_dim]`) of a position
    /// that [`KvCache::reserve`] made room for.
    pub(crate) fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let KvShape {
            heads, head_dim, ..
        } = self.shape;
        let layer = &mut self.layers[layer];
        let row = heads * head_dim;
        let block = position / KEY_BLOCK * KEY_BLOCK * row + position % KEY_BLOCK;
        for (i, &k) in key.iter().enumerate() {
            layer.keys[block + i * KEY_BLOCK] = k;
        }
        layer.values[position * row..(position + 1) * row].copy_from_slice(value);
    }

    /// Counts `tokens` more positions as read.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    pub(crate) fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    pub(crate) fn shape(&self) -> KvShape {
        self.shape
    }
}

impl LayerCache {
    pub(crate) fn keys(&self) -> &[f32] {
        &self.keys
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    fn copy(&self, shape: KvShape, len: usize) -> LayerCache {
        let floats = len.div_ceil(KEY_BLOCK) * KEY_BLOCK * shape.heads * shape.head_dim;
        LayerCache {
            keys: self.keys[..floats].to_vec(),
            values: self.values[..floats].to_vec(),
        }
    }
}

impl std::fmt::Debug for KvCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvCache")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
