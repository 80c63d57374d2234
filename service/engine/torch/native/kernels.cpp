// The forward pass of a Llama-family model on a CPU in fp32; model.py beside it says what and why.
//
// A pass is one parallel region, and what torch runs as a dozen operators a layer is five products
// with the rest inside them: norms while a product's input is packed, biases, residuals and
// activations while its output is stored. Products follow Goto and van de Geijn (2008): weights lie
// in panels as wide as two registers, inputs are packed into tiles of a few rows, sums stay in
// registers. No Python and no torch in here: plain pointers, and OpenMP as torch has loaded it.
//
// Letters in shapes: n rows (tokens), H heads, G key-value heads, R = H/G, D head size.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 12;  // 24 sums, 2 columns and a factor of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8, kRows = 6;  // 12 sums, 2 columns and a factor of 16 registers
#else
constexpr int kLanes = 4, kRows = 6;
#endif
constexpr int kPanel = 2 * kLanes;
constexpr int kBlockRows = 12 * kRows;  // packed inputs of a block stay in the second cache
constexpr int kBlockDepth = 1024;

typedef float Vec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t IntVec __attribute__((vector_size(kLanes * 4)));

#define INLINE inline __attribute__((always_inline))

INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
INLINE Vec splat(float x) { return x - Vec{}; }
INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }

INLINE float sum(Vec v) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

INLINE float largest(Vec v) {
  float most = v[0];
  for (int i = 1; i < kLanes; ++i) most = std::max(most, v[i]);
  return most;
}

// e^x to some 2 units in the last place: 2^n times a polynomial in what is left (Cephes' expf).
// What would underflow, minus infinity too, becomes 1e-38.
INLINE Vec exponential(Vec x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  x = x > 88.0f ? splat(88.0f) : x;
  const float rounder = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
  Vec shifted = x * 1.44269504088896341f + rounder;
  Vec n = shifted - rounder;
  Vec r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  IntVec bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  IntVec power = (bits - 0x4B400000 + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

constexpr int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// sums[i][v] += rows i of a (element p at a[i · row + p · step]) times columns of b (depth, stride).
template <int M, int V>
INLINE void multiply(const float* a, int64_t row, int64_t step, const float* b, int64_t stride,
                     int64_t depth, Vec (&sums)[M][V]) {
  for (int64_t p = 0; p < depth; ++p) {
    Vec column[V];
    for (int v = 0; v < V; ++v) column[v] = load(b + p * stride + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      Vec factor = splat(a[i * row + p * step]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sums[i][v] += factor * column[v];
    }
  }
}

// Calls `work` with the number of rows as a constant.
template <int M = kRows, class Work>
INLINE void with_rows(int rows, Work&& work) {
  if constexpr (M > 1) {
    if (rows < M) return with_rows<M - 1>(rows, work);
  }
  work(std::integral_constant<int, M>{});
}

// Rows [begin, end) of tile t when n rows are dealt out evenly.
struct Tiles {
  int64_t n;
  int64_t count() const { return (n + kRows - 1) / kRows; }
  int64_t begin(int64_t t) const { return n * t / count(); }
};

// The share of `n` things that thread `me` of `all` takes.
struct Share {
  int64_t begin, end;
  Share(int64_t n, int me, int all) : begin(n * me / all), end(n * (me + 1) / all) {}
};

// Memory that is kept between passes, because fresh pages cost more than what is put on them.
class Scratch {
 public:
  // From the start of a cache line on.
  float* floats(int64_t n) {
    constexpr int64_t line = 64, spare = line / sizeof(float);
    if (static_cast<int64_t>(kept_.size()) < n + spare) kept_.resize(n + spare);
    auto at = reinterpret_cast<uintptr_t>(kept_.data());
    return reinterpret_cast<float*>(rounded(at, line));
  }

 private:
  std::vector<float> kept_;
};

struct OfThread {
  Scratch packed, partial, keys, values, scores, norm;
};

// A matrix (columns, depth) in panels: panel j has rows [j · kPanel, …) of it, depth-major.
struct Matrix {
  const float* panels;
  const float* bias;  // padded to whole panels, or null
  int64_t columns, depth;
  int64_t count() const { return (columns + kPanel - 1) / kPanel; }
};

// x (n, ·) times a matrix, the panels of this thread; `sink(row, panel, left, right)` gets the sums,
// with the bias. `eps` ≥ 0 puts an RMS norm in front.
template <class Sink>
void product(const Matrix& m, const float* x, int64_t ld, int64_t n, float eps, OfThread& own, int me,
             int all, Sink&& sink) {
  Share share(m.count(), me, all);
  if (share.begin == share.end) return;
  int64_t wide = share.end - share.begin;
  for (int64_t r0 = 0; r0 < n; r0 += kBlockRows) {
    int64_t rows = std::min<int64_t>(kBlockRows, n - r0);
    Tiles tiles{rows};
    float scale[kBlockRows];
    for (int64_t r = 0; r < rows; ++r) {
      scale[r] = 1;
      if (eps < 0) continue;
      const float* at = x + (r0 + r) * ld;
      Vec squares = {};
      int64_t i = 0;
      for (; i + kLanes <= m.depth; i += kLanes) squares += load(at + i) * load(at + i);
      float total = sum(squares);
      for (; i < m.depth; ++i) total += at[i] * at[i];
      scale[r] = 1 / std::sqrt(total / m.depth + eps);
    }
    for (int64_t d0 = 0; d0 < m.depth; d0 += kBlockDepth) {
      int64_t depth = std::min<int64_t>(kBlockDepth, m.depth - d0);
      bool first = d0 == 0, last = d0 + depth == m.depth;
      float* packed = own.packed.floats(rows * depth);
      float* partial = first && last ? nullptr : own.partial.floats(rows * wide * kPanel);
      for (int64_t t = 0; t < tiles.count(); ++t) {
        int64_t begin = tiles.begin(t), high = tiles.begin(t + 1) - begin;
        float* to = packed + begin * depth;
        for (int64_t i = 0; i < high; ++i) {
          const float* at = x + (r0 + begin + i) * ld + d0;
          float by = scale[begin + i];
          for (int64_t p = 0; p < depth; ++p) to[p * high + i] = at[p] * by;
        }
      }
      for (int64_t j = share.begin; j < share.end; ++j) {
        const float* panel = m.panels + (j * m.depth + d0) * kPanel;
        for (int64_t t = 0; t < tiles.count(); ++t) {
          int64_t begin = tiles.begin(t);
          with_rows(tiles.begin(t + 1) - begin, [&](auto high) {
            constexpr int M = decltype(high)::value;
            Vec sums[M][2];
            float* part = partial + (begin * wide + (j - share.begin) * M) * kPanel;
            for (int i = 0; i < M; ++i)
              for (int v = 0; v < 2; ++v)
                sums[i][v] = first ? Vec{} : load(part + i * kPanel + v * kLanes);
            multiply<M, 2>(packed + begin * depth, 1, M, panel, kPanel, depth, sums);
            if (!last) {
              for (int i = 0; i < M; ++i)
                for (int v = 0; v < 2; ++v) store(part + i * kPanel + v * kLanes, sums[i][v]);
              return;
            }
            Vec left = {}, right = {};
            if (m.bias) {
              left = load(m.bias + j * kPanel);
              right = load(m.bias + j * kPanel + kLanes);
            }
            for (int i = 0; i < M; ++i)
              sink(r0 + begin + i, j, sums[i][0] + left, sums[i][1] + right);
          });
        }
      }
    }
  }
}

struct Layer {
  Matrix queries, keys_values, out, gate_up, down;
  const float* qk_norm;  // (H + G, D), or null
};

struct Model {
  int64_t hidden, width, heads, kv, size, inner;  // width: hidden in whole panels
  float eps;
  const float* turn;  // (positions, D / 2, 2): cosine and sine
  std::vector<Layer> layers;
  // Of the passes, which run one at a time.
  std::vector<OfThread> threads;
  Scratch q, kv_rows, mixed, inside, few, highest, total;

  void prepare(int all) {
    if (static_cast<int>(threads.size()) < all) threads.resize(all);
  }
};

// What a pass is about: see model.py.
struct Pass {
  int64_t n, queries, prompt, places, extra, threads;
  const int64_t *position, *place, *seen, *begin, *length;
  const uint8_t* sees;
  float* const* cache;
  const int64_t* last;
};

// Normalises (where the model does) and turns one head in place.
INLINE void turned(float* x, int64_t size, const float* turn, const float* norm, float eps) {
  if (norm) {
    float total = 0;
    for (int64_t i = 0; i < size; ++i) total += x[i] * x[i];
    float scale = 1 / std::sqrt(total / size + eps);
    for (int64_t i = 0; i < size; ++i) x[i] *= scale * norm[i];
  }
  for (int64_t i = 0; i < size; i += 2) {
    float a = x[i], b = x[i + 1], c = turn[i], s = turn[i + 1];
    x[i] = a * c - b * s;
    x[i + 1] = a * s + b * c;
  }
}

// Queries are turned where they are; keys and values go to their places in the cache.
void turn_and_keep(const Model& model, const Layer& layer, const Pass& pass, float* cache, float* q,
                   const int64_t* q_rows, int64_t q_count, float* kv, int me, int all) {
  int64_t size = model.size, q_ld = rounded(model.heads * size, kPanel);
  int64_t kv_ld = rounded(2 * model.kv * size, kPanel);
  Share asked(q_count, me, all);
  for (int64_t i = asked.begin; i < asked.end; ++i) {
    const float* turn = model.turn + pass.position[q_rows ? q_rows[i] : i] * size;
    for (int64_t h = 0; h < model.heads; ++h) {
      const float* norm = layer.qk_norm ? layer.qk_norm + h * size : nullptr;
      turned(q + i * q_ld + h * size, size, turn, norm, model.eps);
    }
  }
  Share rows(pass.n, me, all);
  int64_t j = 0;
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    while (r >= pass.begin[j + 1]) ++j;
    float* to = cache + (j * 2 * model.kv * pass.places + pass.place[r]) * size;
    float* from = kv + r * kv_ld;
    for (int64_t g = 0; g < 2 * model.kv; ++g, from += size, to += pass.places * size) {
      if (g < model.kv) {
        const float* norm = layer.qk_norm ? layer.qk_norm + (model.heads + g) * size : nullptr;
        turned(from, size, model.turn + pass.position[r] * size, norm, model.eps);
      }
      std::memcpy(to, from, size * sizeof(float));
    }
  }
}

// What one query's rows find through one key-value head. Its places are the prompt's and behind them
// the `extra` ones of beam tokens, moved together.
void attend(const Model& model, const Pass& pass, const float* cache, const float* q, float* mixed,
            const int64_t* q_rows, int64_t j, int64_t g, OfThread& own) {
  int64_t size = model.size, group = model.heads / model.kv;
  int64_t q_ld = rounded(model.heads * size, kPanel), out_ld = model.heads * size;
  int64_t first = q_rows ? j : pass.begin[j], rows = q_rows ? 1 : pass.begin[j + 1] - first;
  if (rows == 0) return;
  int64_t length = pass.length[j], all = length + pass.extra, wide = rounded(all, kPanel);
  int64_t deep = rounded(size, kLanes);
  const float* key = cache + (j * 2 * model.kv + g) * pass.places * size;
  const float* value = key + model.kv * pass.places * size;
  float* keys = own.keys.floats(size * wide);     // (D, places)
  float* values = own.values.floats(all * deep);  // (places, D)
  for (int64_t p0 = 0; p0 < wide; p0 += kLanes) {
    for (int64_t p = p0; p < p0 + kLanes; ++p) {
      const float* at = p >= all ? nullptr : key + (p < length ? p : pass.prompt + p - length) * size;
      for (int64_t d = 0; d < size; ++d) keys[d * wide + p] = at ? at[d] : 0;
    }
  }
  for (int64_t p = 0; p < all; ++p) {
    const float* at = value + (p < length ? p : pass.prompt + p - length) * size;
    std::memcpy(values + p * deep, at, size * sizeof(float));
    for (int64_t d = size; d < deep; ++d) values[p * deep + d] = 0;
  }
  int64_t score_ld = wide + kLanes;  // not a power of two, whose rows would share cache sets
  float* scores = own.scores.floats(kRows * score_ld);
  float* packed = own.packed.floats(kRows * size);
  Tiles tiles{rows * group};
  for (int64_t t = 0; t < tiles.count(); ++t) {
    int64_t begin = tiles.begin(t), high = tiles.begin(t + 1) - begin;
    int64_t reach = 0;
    for (int64_t i = 0; i < high; ++i) {
      int64_t r = first + (begin + i) / group, h = g * group + (begin + i) % group;
      for (int64_t d = 0; d < size; ++d) packed[d * high + i] = q[r * q_ld + h * size + d];
      reach = std::max(reach, pass.seen[q_rows ? q_rows[r] : r]);
    }
    int64_t until = pass.extra ? all : reach, columns = rounded(until, kPanel);
    with_rows(high, [&](auto count) {
      constexpr int M = decltype(count)::value;
      for (int64_t c = 0; c < columns; c += kPanel) {
        Vec sums[M][2] = {};
        multiply<M, 2>(packed, 1, M, keys + c, wide, size, sums);
        for (int i = 0; i < M; ++i)
          for (int v = 0; v < 2; ++v) store(scores + i * score_ld + c + v * kLanes, sums[i][v]);
      }
    });
    float shrink[kRows];
    for (int64_t i = 0; i < high; ++i) {
      int64_t r = first + (begin + i) / group;
      float* row = scores + i * score_ld;
      int64_t seen = pass.seen[q_rows ? q_rows[r] : r];
      std::fill(row + seen, row + std::min(length, columns), -INFINITY);
      for (int64_t e = 0; e < pass.extra; ++e)
        if (!pass.sees[r * pass.extra + e]) row[length + e] = -INFINITY;
      std::fill(row + until, row + columns, -INFINITY);
      Vec most = splat(-INFINITY);
      for (int64_t c = 0; c < columns; c += kLanes) most = larger(most, load(row + c));
      float peak = largest(most);
      Vec total = {};
      for (int64_t c = 0; c < columns; c += kLanes) {
        Vec e = exponential(load(row + c) - peak);
        store(row + c, e);
        total += e;
      }
      shrink[i] = 1 / sum(total);
    }
    with_rows(high, [&](auto count) {
      constexpr int M = decltype(count)::value;
      auto put = [&](int i, int64_t d, Vec v) {
        int64_t r = first + (begin + i) / group, h = g * group + (begin + i) % group;
        float* to = mixed + r * out_ld + h * size + d;
        v *= shrink[i];
        if (d + kLanes <= size) return store(to, v);
        for (int64_t e = 0; d + e < size; ++e) to[e] = v[e];
      };
      int64_t d = 0;
      for (; d + kPanel <= deep; d += kPanel) {
        Vec sums[M][2] = {};
        multiply<M, 2>(scores, score_ld, 1, values + d, deep, until, sums);
        for (int i = 0; i < M; ++i)
          for (int v = 0; v < 2; ++v) put(i, d + v * kLanes, sums[i][v]);
      }
      if (d < deep) {
        Vec sums[M][1] = {};
        multiply<M, 1>(scores, score_ld, 1, values + d, deep, until, sums);
        for (int i = 0; i < M; ++i) put(i, d, sums[i][0]);
      }
    });
  }
}

// All layers over the rows of `x`, in place; where `last` is given, the last layer ends with those
// rows alone, in `out`.
void run(Model& model, const Pass& pass, float* x, float* out) {
  int64_t n = pass.n, size = model.size, ld = model.width;
  int64_t q_ld = rounded(model.heads * size, kPanel), kv_ld = rounded(2 * model.kv * size, kPanel);
  int64_t mixed_ld = model.heads * size, inner_ld = rounded(model.inner, kLanes);
  float *q = model.q.floats(n * q_ld), *kv = model.kv_rows.floats(n * kv_ld);
  float *mixed = model.mixed.floats(n * mixed_ld), *inside = model.inside.floats(n * inner_ld);
  model.prepare(pass.threads);
#pragma omp parallel num_threads(pass.threads) if (pass.threads > 1)
  {
    int me = omp_get_thread_num(), all = omp_get_num_threads();
    OfThread& own = model.threads[me];
    float* rows = x;
    int64_t count = n;
    for (size_t l = 0; l < model.layers.size(); ++l) {
      const Layer& layer = model.layers[l];
      float* cache = pass.cache[l];
      const int64_t* q_rows = nullptr;
      product(layer.keys_values, x, ld, n, model.eps, own, me, all,
              [&](int64_t r, int64_t j, Vec left, Vec right) {
                store(kv + r * kv_ld + j * kPanel, left);
                store(kv + r * kv_ld + j * kPanel + kLanes, right);
              });
      if (pass.last && l + 1 == model.layers.size()) {
        q_rows = pass.last;
        count = pass.queries;
        rows = out;
        Share share(count, me, all);
        for (int64_t i = share.begin; i < share.end; ++i)
          std::memcpy(out + i * ld, x + pass.last[i] * ld, ld * sizeof(float));
#pragma omp barrier
      }
      product(layer.queries, rows, ld, count, model.eps, own, me, all,
              [&](int64_t r, int64_t j, Vec left, Vec right) {
                store(q + r * q_ld + j * kPanel, left);
                store(q + r * q_ld + j * kPanel + kLanes, right);
              });
#pragma omp barrier
      turn_and_keep(model, layer, pass, cache, q, q_rows, count, kv, me, all);
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
      for (int64_t task = 0; task < pass.queries * model.kv; ++task)
        attend(model, pass, cache, q, mixed, q_rows, task / model.kv, task % model.kv, own);
      auto add = [&](int64_t r, int64_t j, Vec left, Vec right) {
        float* to = rows + r * ld + j * kPanel;
        store(to, load(to) + left);
        store(to + kLanes, load(to + kLanes) + right);
      };
      product(layer.out, mixed, mixed_ld, count, -1, own, me, all, add);
#pragma omp barrier
      product(layer.gate_up, rows, ld, count, model.eps, own, me, all,
              [&](int64_t r, int64_t j, Vec gate, Vec up) {
                store(inside + r * inner_ld + j * kLanes, gate / (1.0f + exponential(-gate)) * up);
              });
#pragma omp barrier
      product(layer.down, inside, inner_ld, count, -1, own, me, all, add);
#pragma omp barrier
    }
  }
}

// A level's codes that some of the rows are asked about: the next `rows` of them.
struct Part {
  int64_t rows;
  Matrix codes;
  float* out;  // (rows, codes in whole panels)
};

// Log-probabilities of each part's codes under the softmax over `head`, whose logits are never kept.
void logprobs(Model& model, const Matrix& head, const std::vector<Part>& parts, const float* x,
              int64_t n, int64_t threads) {
  model.prepare(threads);
  // Per thread and row the highest logit so far, and the sum of e^(logit - highest).
  float* highest = model.highest.floats(threads * n);
  float* total = model.total.floats(threads * n);
  std::fill(highest, highest + threads * n, -INFINITY);
  std::fill(total, total + threads * n, 0.0f);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    int me = omp_get_thread_num(), all = omp_get_num_threads();
    OfThread& own = model.threads[me];
    float *high = highest + me * n, *sums = total + me * n;
    product(head, x, model.width, n, model.eps, own, me, all,
            [&](int64_t r, int64_t j, Vec left, Vec right) {
              for (int64_t c = head.columns - j * kPanel; c < kPanel; ++c)
                (c < kLanes ? left[c] : right[c - kLanes]) = -INFINITY;
              float most = largest(larger(left, right));
              if (most > high[r]) {
                sums[r] *= std::exp(high[r] - most);
                high[r] = most;
              }
              sums[r] += sum(exponential(left - high[r]) + exponential(right - high[r]));
            });
    int64_t first = 0;
    for (const Part& part : parts) {
      int64_t ld = rounded(part.codes.columns, kPanel);
      product(part.codes, x + first * model.width, model.width, part.rows, model.eps, own, me, all,
              [&](int64_t r, int64_t j, Vec left, Vec right) {
                store(part.out + r * ld + j * kPanel, left);
                store(part.out + r * ld + j * kPanel + kLanes, right);
              });
      first += part.rows;
    }
#pragma omp barrier
    first = 0;
    for (const Part& part : parts) {
      int64_t ld = rounded(part.codes.columns, kPanel);
      Share share(part.rows, me, all);
      for (int64_t r = share.begin; r < share.end; ++r) {
        float most = -INFINITY, sum = 0;
        for (int t = 0; t < all; ++t) most = std::max(most, highest[t * n + first + r]);
        for (int t = 0; t < all; ++t)
          sum += total[t * n + first + r] * std::exp(highest[t * n + first + r] - most);
        float normaliser = most + std::log(sum);
        for (int64_t c = 0; c < ld; ++c) part.out[r * ld + c] -= normaliser;
      }
      first += part.rows;
    }
  }
}

// The token with the highest logit behind one row.
int64_t likeliest(Model& model, const Matrix& head, const float* x) {
  model.prepare(1);
  int64_t best = 0;
  float most = -INFINITY;
  product(head, x, model.width, 1, model.eps, model.threads[0], 0, 1,
          [&](int64_t, int64_t j, Vec left, Vec right) {
            for (int64_t c = 0; c < kPanel && j * kPanel + c < head.columns; ++c) {
              float logit = c < kLanes ? left[c] : right[c - kLanes];
              if (logit > most) most = logit, best = j * kPanel + c;
            }
          });
  return best;
}

}  // namespace

extern "C" {

// Whether this processor has what the library was compiled for.
int sidrec_runs_here() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return 1;
#endif
}

int64_t sidrec_lanes() { return kLanes; }

Model* sidrec_model(int64_t layers, int64_t hidden, int64_t heads, int64_t kv, int64_t size,
                    int64_t inner, float eps, const float* turn) {
  auto* model = new Model();
  *model = Model{hidden, rounded(hidden, kPanel), heads, kv, size, inner, eps, turn,
                 std::vector<Layer>(layers), {}, {}, {}, {}, {}, {}, {}, {}};
  return model;
}

void sidrec_free(Model* model) { delete model; }

// The matrices of a layer in the order of `Layer`: panels and bias of each, then the norm.
void sidrec_layer(Model* model, int64_t i, const float* const* given) {
  int64_t size = model->size, heads = model->heads * size, kv = 2 * model->kv * size;
  int64_t inner = rounded(model->inner, kLanes);
  model->layers[i] = Layer{{given[0], given[1], heads, model->hidden},
                           {given[2], given[3], kv, model->hidden},
                           {given[4], given[5], model->hidden, heads},
                           {given[6], given[7], 2 * inner, model->hidden},
                           {given[8], given[9], model->hidden, model->inner},
                           given[10]};
}

void sidrec_run(Model* model, int64_t n, int64_t queries, int64_t prompt, int64_t places,
                int64_t extra, int64_t threads, const int64_t* position, const int64_t* place,
                const int64_t* seen, const int64_t* begin, const int64_t* length,
                const uint8_t* sees, float* const* cache, const int64_t* last, float* x, float* out) {
  run(*model, Pass{n, queries, prompt, places, extra, threads, position, place, seen, begin, length,
                   sees, cache, last},
      x, out);
}

void sidrec_logprobs(Model* model, const float* head, int64_t vocabulary, int64_t parts,
                     const int64_t* rows, const float* const* codes, const int64_t* counts,
                     float* const* out, const float* x, int64_t n, int64_t threads) {
  std::vector<Part> asked;
  for (int64_t i = 0; i < parts; ++i)
    asked.push_back({rows[i], {codes[i], nullptr, counts[i], model->hidden}, out[i]});
  logprobs(*model, {head, nullptr, vocabulary, model->hidden}, asked, x, n, threads);
}

int64_t sidrec_likeliest(Model* model, const float* head, int64_t vocabulary, const float* x) {
  return likeliest(*model, {head, nullptr, vocabulary, model->hidden}, x);
}
}
