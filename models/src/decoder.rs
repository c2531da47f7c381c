//! The model, written once: what a decoder of the Llama family or Gemma 3
//! computes, in terms of a few operations that a [`Machine`] has.
//!
//! The lines of [`run`] and `layer` are the steps of docs/spec/exact.md 6. How
//! an operation is carried out, on which device, and to which bit, is the
//! machine's: the exact CPU kernels (`exact::pass`) or candle's tensors
//! (`candle`).

/// A model's tensors, in whatever form a machine takes them.
pub(crate) struct Weights<M, V> {
    /// Token embeddings: one output per token.
    pub embedding: M,
    /// Layers, first to last.
    pub layers: Vec<Layer<M, V>>,
    /// Weight of the norm after the last layer.
    pub final_norm: V,
    /// Output head, where it isn't the embedding again.
    pub head: Option<M>,
}

/// One layer's tensors, named as in spec 6.1.
pub(crate) struct Layer<M, V> {
    pub attention_norm: V,
    pub query: M,
    pub key: M,
    pub value: M,
    pub query_norm: Option<V>,
    pub key_norm: Option<V>,
    pub attention_output: M,
    pub post_attention_norm: Option<V>,
    pub ffn_norm: V,
    pub gate: M,
    pub up: M,
    pub down: M,
    pub post_ffn_norm: Option<V>,
}

impl<M, V> Weights<M, V> {
    /// The output head.
    pub fn head(&self) -> &M {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The same tensors in another form. Matrices are shown to `matrix` in the order of
    /// [`Weights::matrices`].
    pub fn try_map<N, W, E>(
        self,
        mut matrix: impl FnMut(M) -> Result<N, E>,
        mut vector: impl FnMut(V) -> Result<W, E>,
    ) -> Result<Weights<N, W>, E> {
        let embedding = matrix(self.embedding)?;
        let head = self.head.map(&mut matrix).transpose()?;
        let layers = self.layers.into_iter().map(|layer| {
            Ok(Layer {
                attention_norm: vector(layer.attention_norm)?,
                query: matrix(layer.query)?,
                key: matrix(layer.key)?,
                value: matrix(layer.value)?,
                query_norm: layer.query_norm.map(&mut vector).transpose()?,
                key_norm: layer.key_norm.map(&mut vector).transpose()?,
                attention_output: matrix(layer.attention_output)?,
                post_attention_norm: layer.post_attention_norm.map(&mut vector).transpose()?,
                ffn_norm: vector(layer.ffn_norm)?,
                gate: matrix(layer.gate)?,
                up: matrix(layer.up)?,
                down: matrix(layer.down)?,
                post_ffn_norm: layer.post_ffn_norm.map(&mut vector).transpose()?,
            })
        });
        Ok(Weights {
            embedding,
            layers: layers.collect::<Result<_, E>>()?,
            final_norm: vector(self.final_norm)?,
            head,
        })
    }

    /// All matrices.
    pub fn matrices(&self) -> impl Iterator<Item = &M> {
        let layers = self.layers.iter().flat_map(|layer| {
            [
                &layer.query,
                &layer.key,
                &layer.value,
                &layer.attention_output,
                &layer.gate,
                &layer.up,
                &layer.down,
            ]
        });
        [&self.embedding]
            .into_iter()
            .chain(&self.head)
            .chain(layers)
    }
}

/// What computes a step.
///
/// It holds the step's rows: for each, the residual stream `x`, and `y`, which the last
/// operation left. Rows touch each other in [`Machine::attention`] only.
pub(crate) trait Machine {
    /// A linear layer's weights.
    type Matrix;
    /// A norm's weights.
    type Vector;
    /// Why a step can't be computed.
    type Error;

    /// x ← rows of the embedding, scaled (6.2); and whatever depends on positions alone.
    fn embed(&mut self, embedding: &Self::Matrix) -> Result<(), Self::Error>;

    /// y ← RMS norm of x.
    fn norm(&mut self, weight: &Self::Vector) -> Result<(), Self::Error>;

    /// Queries, keys and values ← linear of y (6.3.2).
    fn project(&mut self, matrices: [&Self::Matrix; 3]) -> Result<(), Self::Error>;

    /// Norms the heads where there are weights for that, rotates them, scales the queries, and
    /// keeps keys and values as the layer's (6.3.3 to 6.3.5).
    fn place(
        &mut self,
        layer: usize,
        query_norm: Option<&Self::Vector>,
        key_norm: Option<&Self::Vector>,
    ) -> Result<(), Self::Error>;

    /// From here on, only the rows that somebody wants to see are computed.
    fn narrow(&mut self) -> Result<(), Self::Error>;

    /// y ← attention of the queries over the layer's keys and values (6.3.6).
    fn attention(&mut self, layer: usize) -> Result<(), Self::Error>;

    /// x ← x + linear of y, normed first where there are weights for that (6.3.7).
    fn join(
        &mut self,
        matrix: &Self::Matrix,
        norm: Option<&Self::Vector>,
    ) -> Result<(), Self::Error>;

    /// y ← the gated unit of two linears of y (6.3.8).
    fn gate(&mut self, gate: &Self::Matrix, up: &Self::Matrix) -> Result<(), Self::Error>;

    /// Logits ← linear of y, capped (6.4). y is the final hidden state.
    fn head(&mut self, matrix: &Self::Matrix) -> Result<(), Self::Error>;
}

/// A machine's form of the weights.
pub(crate) type WeightsOf<M> = Weights<<M as Machine>::Matrix, <M as Machine>::Vector>;

/// Computes a step: embedding, layers, head (spec 6).
pub(crate) fn run<M: Machine>(machine: &mut M, weights: &WeightsOf<M>) -> Result<(), M::Error> {
    machine.embed(&weights.embedding)?;
    for (index, tensors) in weights.layers.iter().enumerate() {
        let last = index + 1 == weights.layers.len();
        layer(machine, index, tensors, last)?;
    }
    machine.norm(&weights.final_norm)?;
    machine.head(weights.head())
}

fn layer<M: Machine>(
    machine: &mut M,
    index: usize,
    layer: &Layer<M::Matrix, M::Vector>,
    last: bool,
) -> Result<(), M::Error> {
    machine.norm(&layer.attention_norm)?;
    machine.project([&layer.query, &layer.key, &layer.value])?;
    machine.place(index, layer.query_norm.as_ref(), layer.key_norm.as_ref())?;
    if last {
        // Nothing needs the other rows once their keys are stored.
        machine.narrow()?;
    }
    machine.attention(index)?;
    let norm = layer.post_attention_norm.as_ref();
    machine.join(&layer.attention_output, norm)?;
    machine.norm(&layer.ffn_norm)?;
    machine.gate(&layer.gate, &layer.up)?;
    machine.join(&layer.down, layer.post_ffn_norm.as_ref())
}
