// Convolution of 3x3 with one pixel of zeros around, and batch norm with ReLU, on the CPU, for training.
//
// Tensors are float32, channels last: (N, H, W, C), C a multiple of 16. The convolution is Winograd's
// F(4x4, 3x3) (Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.3):
// a tile of 6x6 pixels becomes 36 numbers a channel, 36 small products of matrices over the channels follow, and
// 36 sums a channel become 4x4 pixels: 4 times fewer multiplications than the definition. The gradient of
// the weights is the transpose of the same linear maps.
//
// Both halves of a transform are apart: down the columns for whole rows of tiles, contiguous in memory, then
// across for one of the six rows at a time, so that this row's six products stay in the first cache.

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <omp.h>
#include <type_traits>
#include <utility>

namespace {

#if defined(__AVX512F__) || defined(LONGTAIL_WIDE)
constexpr int W = 16, ROWS = 12;  // floats of a register; rows of a product that registers hold
#else
constexpr int W = 8, ROWS = 6;
#endif
constexpr int COLUMNS = 16, NV = COLUMNS / W;

typedef float vec __attribute__((vector_size(W * 4), aligned(4), may_alias));
#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(LONGTAIL_WIDE)
#define HOLD(v) __asm__("" : "+x"(v))  // in a register: GCC would load it anew for each row
#else
#define HOLD(v)
#endif
INLINE vec load(const float* p) { return *(const vec*)p; }
INLINE void store(float* p, vec v) { *(vec*)p = v; }

INLINE vec relu(vec v) { return v < 0 ? vec{} : v; }  // NaN stays NaN
INLINE vec relu_back(vec outcome, vec g) { return outcome <= 0 ? vec{} : g; }

struct Shape { long N, H, W, th, tw; };
struct Parameters {  // of a convolution, (o, i, y, x) at these strides, and its norm; or their gradients
  float* w;
  long so, si, sy, sx;
  float *scale, *shift;
};
struct Statistics { float *mean, *var; double momentum, eps; };  // that a norm keeps running
// What is convolved: x or, with a norm's kept `inner`, relu(norm(x)). Or x is the outcome of a block, relu(norm(y) +
// shortcut) with this norm's kept `outer`
struct Source { const float *x, *inner, *y, *outer; };
struct Four { vec a, b, c, d; };
struct Six { vec a, b, c, d, e, f; };

struct Memory {  // kept by each thread from call to call: new pages cost more than the arithmetic
  float* at = nullptr;
  size_t size = 0;
  float* of(size_t floats) {
    if (floats > size) {
      free(at);
      size = 0;
      at = (float*)aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
      if (!at) throw std::bad_alloc();
      size = floats;
    }
    return at;
  }
  ~Memory() { free(at); }
};
thread_local Memory scratch, sums, moments, coefficients, filters, between, ended;

// C[r][0:16] (+)= sum over k of A[r rs + k ks] B[k ldb + 0:16], and over `runs` of such, A and B some steps apart
template <int R, int K, bool ADD>
INLINE void product(const float* A, long rs, long ks, const float* B, long ldb, float* C, long ldc, long k_,
                    long runs = 1, long A_step = 0, long B_step = 0) {
  vec c[R][NV];
  UNROLL for (int r = 0; r < R; r++)
    UNROLL for (int v = 0; v < NV; v++) c[r][v] = ADD ? load(C + r * ldc + v * W) : vec{};
  const long n = K ? K : k_;
  for (long run = 0; run < runs; run++) {
    const float *a_k = A + run * A_step, *b_k = B + run * B_step;
    _Pragma("GCC unroll 4")
    for (long k = 0; k < n; k++, a_k += ks, b_k += ldb) {
      vec b[NV];
      UNROLL for (int v = 0; v < NV; v++) {
        b[v] = load(b_k + v * W);
        HOLD(b[v]);
      }
      UNROLL for (int r = 0; r < R; r++) {
        const float a = a_k[r * rs];
        UNROLL for (int v = 0; v < NV; v++) c[r][v] += a * b[v];
      }
    }
  }
  UNROLL for (int r = 0; r < R; r++)
    UNROLL for (int v = 0; v < NV; v++) store(C + r * ldc + v * W, c[r][v]);
}

// B^T of F(4, 3) with the points 0, 1, -1, 2, -2: how six pixels of the input enter
INLINE Six enter(vec d0, vec d1, vec d2, vec d3, vec d4, vec d5) {
  vec t0 = d4 - 4.f * d2, t1 = d3 - 4.f * d1, t2 = d4 - d2, t3 = 2.f * (d3 - d1);
  return {4.f * d0 + (t0 - d2), t0 + t1, t0 - t1, t2 + t3, t2 - t3, 4.f * d1 - 5.f * d3 + d5};
}

// A^T: how four pixels of the output leave
INLINE Four leave(vec m0, vec m1, vec m2, vec m3, vec m4, vec m5) {
  vec a = m1 + m2, b = m1 - m2, c = m3 + m4, e = m3 - m4;
  return {m0 + a + c, b + 2.f * e, a + 4.f * c, b + 8.f * e + m5};
}

// A: how four pixels of the output's gradient enter
INLINE Six enter_back(vec y0, vec y1, vec y2, vec y3) {
  vec s = y0 + y2, t = y1 + y3, u = y0 + 4.f * y2, v = 2.f * y1 + 8.f * y3;
  return {y0, s + t, s - t, u + v, u - v, y3};
}

const float G[6][3] = {{1 / 4.f, 0, 0},           {-1 / 6.f, -1 / 6.f, -1 / 6.f}, {-1 / 6.f, 1 / 6.f, -1 / 6.f},
                       {1 / 24.f, 1 / 12.f, 1 / 6.f}, {1 / 24.f, -1 / 12.f, 1 / 6.f}, {0, 0, 1}};

INLINE void put(float* p, long step, Six s) {
  store(p, s.a); store(p + step, s.b); store(p + 2 * step, s.c);
  store(p + 3 * step, s.d); store(p + 4 * step, s.e); store(p + 5 * step, s.f);
}

// Six rows of W pixels around a row of tiles; those outside the image are zeros, whatever they point at
struct Rows {
  const float* at[6];
  bool in[6];
  INLINE vec operator()(int i, long c) const { return in[i] ? load(at[i] + c) : vec{}; }
};

INLINE Rows rows_of(const float* x, Shape s, long C, long strip) {
  Rows rows;
  const long n = strip / s.th, top = strip % s.th * 4 - 1;
  for (int i = 0; i < 6; i++) {
    rows.in[i] = top + i >= 0 && top + i < s.H;
    rows.at[i] = x + (n * s.H + (rows.in[i] ? top + i : 0)) * s.W * C;
  }
  return rows;
}

// The same of relu(norm(x)), computed into memory; `before` is the norm's kept[4][C], or null for x itself
INLINE Rows rows_norm(const float* x, const float* before, Shape s, long C, long strip, float* memory) {
  Rows rows = rows_of(x, s, C, strip);
  if (!before) return rows;
  const long valid = s.W * C;
  for (int i = 0; i < 6; i++) {
    if (!rows.in[i]) continue;
    const float* from = rows.at[i];
    float* to = memory + i * valid;
    rows.at[i] = to;
    for (long c = 0; c < C; c += W) {
      const vec scale = load(before + 2 * C + c), shift = load(before + 3 * C + c);
      for (long k = c; k < valid; k += C) store(to + k, relu(load(from + k) * scale + shift));
    }
  }
  return rows;
}

// Down the columns of the input: six rows of 4 tw + 2 pixels, with zeros outside the image
INLINE void down(Rows x, Shape s, long C, float* S, long row) {
  const long valid = s.W * C, wide = (4 * s.tw + 2) * C;
  for (int i = 0; i < 6; i++) {
    for (long c = 0; c < C; c += W) store(S + i * row + c, vec{});
    for (long c = C + valid; c < wide; c += W) store(S + i * row + c, vec{});
  }
  float* q = S + C;
  if (x.in[0] && x.in[4] && x.in[5]) {
    for (long c = 0; c < valid; c += W)
      put(q + c, row, enter(load(x.at[0] + c), load(x.at[1] + c), load(x.at[2] + c), load(x.at[3] + c),
                            load(x.at[4] + c), load(x.at[5] + c)));
  } else {
    for (long c = 0; c < valid; c += W) put(q + c, row, enter(x(0, c), x(1, c), x(2, c), x(3, c), x(4, c), x(5, c)));
  }
}

// The same for the output's gradient: six rows of 4 tw pixels from the four in the middle
INLINE void down_back(Rows g, Shape s, long C, float* S, long row) {
  const long valid = s.W * C, wide = 4 * s.tw * C;
  for (int i = 0; i < 6; i++)
    for (long c = valid; c < wide; c += W) store(S + i * row + c, vec{});
  for (long c = 0; c < valid; c += W) put(S + c, row, enter_back(g(1, c), g(2, c), g(3, c), g(4, c)));
}

// Across one of the six rows: V[6][tile][C], of the input or of the output's gradient
template <int CC, bool BACK>
INLINE void across(const float* S, long tw, long C_, float* V, long step) {
  const long C = CC ? CC : C_;
  for (long tx = 0; tx < tw; tx++)
    for (long c = 0; c < C; c += W) {
      const float* a = S + tx * 4 * C + c;
      put(V + tx * C + c, step,
          BACK ? enter_back(load(a), load(a + C), load(a + 2 * C), load(a + 3 * C))
               : enter(load(a), load(a + C), load(a + 2 * C), load(a + 3 * C), load(a + 4 * C), load(a + 5 * C)));
    }
}

// Six products for R tiles and 16 channels of the output, and out across: D[tile][4 pixels][O]
template <int R, int CI, int CO>
INLINE void products(const float* V, long step, const float* U, float* D, long I_, long O_) {
  const long I = CI ? CI : I_, O = CO ? CO : O_;
  constexpr int P = R * COLUMNS;
  alignas(64) float M[6 * P];
  for (int p = 0; p < 6; p++) product<R, CI, false>(V + p * step, I, 1, U + p * I * O, COLUMNS, M + p * P, COLUMNS, I);
  for (int r = 0; r < R; r++)
    UNROLL for (int c = 0; c < COLUMNS; c += W) {
      const float* m = M + r * COLUMNS + c;
      Four f = leave(load(m), load(m + P), load(m + 2 * P), load(m + 3 * P), load(m + 4 * P), load(m + 5 * P));
      float* d = D + r * 4 * O + c;
      store(d, f.a); store(d + O, f.b); store(d + 2 * O, f.c); store(d + 3 * O, f.d);
    }
}

template <bool ADD>
INLINE void out_down(float* y, Shape s, long C, long strip, const float* D, long row) {
  const long n = strip / s.th, ty = strip % s.th, valid = s.W * C, left = s.H - ty * 4;
  float* q = y + (n * s.H + ty * 4) * valid;
  for (long c = 0; c < valid; c += W) {
    const float* d = D + c;
    Four f = leave(load(d), load(d + row), load(d + 2 * row), load(d + 3 * row), load(d + 4 * row), load(d + 5 * row));
    const vec rows[4] = {f.a, f.b, f.c, f.d};
    UNROLL for (int i = 0; i < 4; i++)
      if (i < left) store(q + i * valid + c, ADD ? load(q + i * valid + c) + rows[i] : rows[i]);
  }
}

// Add to two[2][C] two numbers a channel, summed over pixels from..to in float
template <class F>
INLINE void add_sums(long from, long to, long C, double* two, F at) {
  for (long c = 0; c < C; c += W) {
    vec u[4] = {}, v[4] = {};
    long p = from;
    for (; p + 4 <= to; p += 4)
      UNROLL for (int k = 0; k < 4; k++) at(p + k, c, u[k], v[k]);
    for (; p < to; p++) at(p, c, u[0], v[0]);
    const vec su = (u[0] + u[1]) + (u[2] + u[3]), sv = (v[0] + v[1]) + (v[2] + v[3]);
    for (int k = 0; k < W; k++) two[c + k] += su[k], two[C + c + k] += sv[k];
  }
}

// The same over the pixels of one row of tiles
template <class F>
INLINE void add_strip(Shape s, long strip, long C, double* two, F at) {
  const long n = strip / s.th, top = strip % s.th * 4, bottom = top + 4 < s.H ? top + 4 : s.H;
  add_sums((n * s.H + top) * s.W, (n * s.H + bottom) * s.W, C, two, at);
}

// two[c] = the sum of all[t][c] over the parts, in their order
inline void gather(const double* all, long parts, long count, double* two) {
  for (long c = 0; c < count; c++) {
    two[c] = 0;
    for (long t = 0; t < parts; t++) two[c] += all[t * count + c];
  }
}

// What is summed for a norm's statistics: y - around and its square
INLINE auto moments_at(const float* y, const float* around, long C) {
  return [=](long p, long c, vec& u, vec& v) __attribute__((always_inline)) {
    const vec d = load(y + p * C + c) - load(around + c);
    u += d;
    v += d * d;
  };
}

// And for its gradient: m, the gradient g where relu(norm(y)) let pass, and m (y - mean)
INLINE auto back_at(const float* g, const float* y, const float* kept, long C) {
  return [=](long p, long c, vec& u, vec& v) __attribute__((always_inline)) {
    const vec here = load(y + p * C + c), outcome = here * load(kept + 2 * C + c) + load(kept + 3 * C + c);
    const vec m = relu_back(outcome, load(g + p * C + c));
    u += m;
    v += m * (here - load(kept + c));
  };
}

// The same where x = relu(norm(y) + shortcut) tells what passed; m is put in the place of g
INLINE auto passed_at(float* g, const float* x, const float* y, const float* kept, long C) {
  return [=](long p, long c, vec& u, vec& v) __attribute__((always_inline)) {
    const long at = p * C + c;
    const vec m = relu_back(load(x + at), load(g + at));
    store(g + at, m);
    u += m;
    v += m * (load(y + at) - load(kept + c));
  };
}

// Into how many parts to cut `count` pieces of work on C channels: several a thread, for the machine may hold one of
// them up, but fewer for more channels, whose parts need larger matrices of their own. Outcomes depend on this number,
// never on which thread did what.
inline long parts_of(long count, long C, int threads) {
  const long parts = threads == 1 ? 1 : threads * (C < 128 ? 128 / C : 1);
  return parts < count ? parts : count;
}

// Run body(first, last, part) on equal parts of `count`
template <class F>
void share(long count, long parts, int threads, F body) {
  bool failed = false;  // no exception may leave the threads' loop
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (long t = 0; t < parts; t++) {
    try {
      body(count * t / parts, count * (t + 1) / parts, t);
    } catch (const std::bad_alloc&) {
#pragma omp atomic write
      failed = true;
    }
  }
  if (failed) throw std::bad_alloc();
}

struct Plan {  // rows of tiles a block, and the sizes of its buffers, padded so that rows share no cache set
  long rows, v, z, strip_in, row_in, strip_out, row_out;
  Plan(Shape s, long I, long O, long tiles) {
    rows = tiles / s.tw > 1 ? tiles / s.tw : 1;
    v = rows * s.tw * I + 16, z = rows * s.tw * O + 16;
    strip_in = (4 * s.tw + 2) * I, row_in = rows * strip_in + 16;
    strip_out = 4 * s.tw * O, row_out = rows * strip_out + 16;
  }
};

// Cut `count` rows into products of as many as registers hold, the rest into such as keep the arithmetic busy;
// body(R, from) takes R of them, a constant
template <class F>
INLINE void pieces(long count, F body) {
  long from = 0;
  for (; count - from == ROWS || count - from >= ROWS + 4; from += ROWS) body(std::integral_constant<int, ROWS>(), from);
  for (; count - from >= 4; from += 4) body(std::integral_constant<int, 4>(), from);
  for (; count - from >= 2; from += 2) body(std::integral_constant<int, 2>(), from);
  for (; from < count; from++) body(std::integral_constant<int, 1>(), from);
}

// All products of one of the six rows: from V[6][tile][I] to D[tile][4 pixels][O]
template <int CI, int CO>
INLINE void all_products(const float* V, long step, const float* U, float* D, long I_, long O_, long tiles) {
  const long I = CI ? CI : I_, O = CO ? CO : O_;
  for (long j = 0; j < O; j += COLUMNS) {
    pieces(tiles, [=](auto R, long t) __attribute__((always_inline)) {
      products<R, CI, CO>(V + t * I, step, U + j * I, D + t * 4 * O + j, I, O);
    });
  }
}

template <int CI, int CO>
void tiles_convolve(const float* x, const float* before, const float* U, float* y, Shape s, long I_, long O_,
              const float* around, double* two, long begin, long end) {
  const Plan plan(s, I_, O_, 48);
  const long I = CI ? CI : I_, O = CO ? CO : O_;
  float* V = scratch.of(6 * (plan.v + plan.row_in + plan.row_out + s.W * I));
  float *S = V + 6 * plan.v, *D = S + 6 * plan.row_in, *memory = D + 6 * plan.row_out;
  for (long from = begin; from < end; from += plan.rows) {
    const long n = from + plan.rows < end ? plan.rows : end - from;
    for (long r = 0; r < n; r++)
      down(rows_norm(x, before, s, I, from + r, memory), s, I, S + r * plan.strip_in, plan.row_in);
    for (int i = 0; i < 6; i++) {
      for (long r = 0; r < n; r++)
        across<CI, false>(S + i * plan.row_in + r * plan.strip_in, s.tw, I, V + r * s.tw * I, plan.v);
      all_products<CI, CO>(V, plan.v, U + i * 6 * I * O, D + i * plan.row_out, I, O, n * s.tw);
    }
    for (long r = 0; r < n; r++) {
      out_down<false>(y, s, O, from + r, D + r * plan.strip_out, plan.row_out);
      if (around) add_strip(s, from + r, O, two, moments_at(y, around, O));
    }
  }
}

// What norm and ReLU pass back: dy = scale m + slope y + level, where m is g where the ReLU let pass
struct Norm {
  const float *g, *y, *scale, *shift, *slope, *level;
  bool passed;  // g is m already; if not, y tells what passed
};

// `count` numbers of dy, C a pixel, from the given one on
INLINE void back(const Norm& norm, long from, long count, long C, float* to) {
  const float *y = norm.y + from, *g = norm.g + from;
  for (long c = 0; c < C; c += W) {
    const vec scale = load(norm.scale + c), shift = load(norm.shift + c), slope = load(norm.slope + c),
              level = load(norm.level + c);
    if (norm.passed) {
      for (long k = c; k < count; k += C) store(to + k, scale * load(g + k) + (slope * load(y + k) + level));
    } else {
      for (long k = c; k < count; k += C) {
        const vec here = load(y + k), m = relu_back(here * scale + shift, load(g + k));
        store(to + k, scale * m + (slope * here + level));
      }
    }
  }
}

// The six rows of dy around a row of tiles, into memory
INLINE Rows rows_back(const Norm& norm, Shape s, long C, long strip, float* memory) {
  Rows rows = rows_of(norm.y, s, C, strip);
  const long valid = s.W * C;
  for (int i = 0; i < 6; i++) {
    if (!rows.in[i]) continue;
    back(norm, rows.at[i] - norm.y, valid, C, memory + i * valid);
    rows.at[i] = memory + i * valid;
  }
  return rows;
}

// The gradients of input and weights, through norm and ReLU; U are the turned weights, dU this part's sum, `two` the
// sums that the gradient of the source's norm needs
template <int CI, int CO>
void tiles_back(const Source& in, const Norm& norm, const float* U, float* dx, bool add, float* dU, double* two,
                Shape s, long I_, long O_, long begin, long end) {
  const Plan plan(s, I_, O_, 24), back(s, O_, I_, 24);
  const long I = CI ? CI : I_, O = CO ? CO : O_;
  float* V = scratch.of(6 * (plan.v + 2 * plan.z + plan.row_in + plan.row_out + back.row_in + back.row_out +
                             s.W * (O + I)));
  float *Z = V + 6 * plan.v, *Y = Z + 6 * plan.z, *S = Y + 6 * plan.z, *Q = S + 6 * plan.row_in;
  float *P = Q + 6 * plan.row_out, *D = P + 6 * back.row_in, *memory = D + 6 * back.row_out, *entered = memory + 6 * s.W * O;
  for (long from = begin; from < end; from += plan.rows) {
    const long n = from + plan.rows < end ? plan.rows : end - from, tiles = n * s.tw;
    for (long r = 0; r < n; r++) {
      const Rows dy = rows_back(norm, s, O, from + r, memory);
      down(dy, s, O, P + r * back.strip_in, back.row_in);
      down_back(dy, s, O, Q + r * plan.strip_out, plan.row_out);
      down(rows_norm(in.x, in.inner, s, I, from + r, entered), s, I, S + r * plan.strip_in, plan.row_in);
    }
    for (int i = 0; i < 6; i++) {
      for (long r = 0; r < n; r++) {
        across<CI, false>(S + i * plan.row_in + r * plan.strip_in, s.tw, I, V + r * s.tw * I, plan.v);
        across<CO, true>(Q + i * plan.row_out + r * plan.strip_out, s.tw, O, Z + r * s.tw * O, plan.z);
      }
      for (int p = 0; p < 6; p++)
        for (long j = 0; j < O; j += COLUMNS) {
          float* u = dU + (i * 6 + p) * I * O + j;
          const float *v = V + p * plan.v, *z = Z + p * plan.z + j;
          pieces(I, [=](auto R, long k) __attribute__((always_inline)) {
            product<R, 0, true>(v + k, 1, I, z, O, u + k * O, O, tiles);
          });
        }
      if (!dx) continue;
      for (long r = 0; r < n; r++)
        across<CO, false>(P + i * back.row_in + r * back.strip_in, s.tw, O, Y + r * s.tw * O, back.v);
      all_products<CO, CI>(Y, back.v, U + i * 6 * I * O, D + i * back.row_out, O, I, tiles);
    }
    if (!dx) continue;
    for (long r = 0; r < n; r++) {
      if (add) out_down<true>(dx, s, I, from + r, D + r * back.strip_out, back.row_out);
      else out_down<false>(dx, s, I, from + r, D + r * back.strip_out, back.row_out);
      if (in.inner) add_strip(s, from + r, I, two, back_at(dx, in.x, in.inner, I));
      if (in.outer) add_strip(s, from + r, I, two, passed_at(dx, in.x, in.y, in.outer, I));
    }
  }
}

constexpr long BAND = 4;  // rows of the output whose pixels stay in the first cache

// A convolution by its definition, for any I and a stride of 1 or 2. Memory of a part: x with zeros around
INLINE float* framed(long H, long wide, long more = 0) {
  float* X = scratch.of((H + 2) * wide + more);
  memset(X, 0, ((H + 2) * wide + more) * sizeof(float));
  return X;
}

INLINE void frame(const float* x, long n, long H, long Wd, long I, float* X) {
  for (long r = 0; r < H; r++) memcpy(X + ((r + 1) * (Wd + 2) + 1) * I, x + (n * H + r) * Wd * I, Wd * I * sizeof(float));
}

// Images begin to end, of each the first `rows` rows; u[O / 16][3 rows][3 columns][I][16]
template <int CI, int CO>
void direct(const float* x, const float* u, float* y, long stride, long H, long Wd, long I_, long O_, long rows,
            const float* around, double* two, long begin, long end) {
  const long I = CI ? CI : I_, O = CO ? CO : O_, h = (H + stride - 1) / stride, w = (Wd + stride - 1) / stride;
  const long wide = (Wd + 2) * I;
  float* X = framed(H, wide);
  for (long n = begin; n < end; n++) {
    frame(x, n, H, Wd, I, X);
    for (long top = 0; top < rows; top += BAND) {
      const long bottom = top + BAND < rows ? top + BAND : rows;
      for (long j = 0; j < O; j += COLUMNS)
        for (long r = top; r < bottom; r++)
          pieces(w, [=](auto R, long t) __attribute__((always_inline)) {
            product<R, 3 * CI, false>(X + r * stride * wide + t * stride * I, stride * I, 1, u + j * 9 * I, COLUMNS,
                                      y + ((n * h + r) * w + t) * O + j, O, 3 * I, 3, wide, 3 * I * COLUMNS);
          });
      if (around) add_sums((n * h + top) * w, (n * h + bottom) * w, O, two, moments_at(y, around, O));
    }
  }
}

// The gradient of its weights, from `rows` rows of dy, `narrow` floats each: dw[3 rows][3 columns][I][O]
INLINE void direct_weights(const float* X, const float* Y, float* dw, long stride, long wide, long narrow, long rows,
                           long w, long I, long O) {
  for (long a = 0; a < 3; a++)
    for (long j = 0; j < O; j += COLUMNS)
      pieces(3 * I, [=](auto R, long k) __attribute__((always_inline)) {
        product<R, 0, true>(X + a * wide + k, 1, stride * I, Y + j, O, dw + (a * 3 * I + k) * O + j, O, w, rows,
                            stride * wide, narrow);
      });
}

// The same for stride 1, through norm and ReLU; dw is this part's sum
template <int CI, int CO>
void direct_back(const float* x, const Norm& norm, float* dw, long H, long Wd, long I_, long O_, long begin, long end) {
  const long I = CI ? CI : I_, O = CO ? CO : O_, wide = (Wd + 2) * I;
  float *X = framed(H, wide, BAND * Wd * O), *Y = X + (H + 2) * wide;
  for (long n = begin; n < end; n++) {
    frame(x, n, H, Wd, I, X);
    for (long r = 0; r < H; r += BAND) {
      const long rows = r + BAND < H ? BAND : H - r;
      back(norm, (n * H + r) * Wd * O, rows * Wd * O, O, Y);
      direct_weights(X + r * wide, Y, dw, 1, wide, Wd * O, rows, Wd, I, O);
    }
  }
}

// For stride 2 also of x, and with the shortcut whose outcome has the gradient m (see norm_relu_pooled): H and W, of x,
// are even. Pixels of even rows (columns) saw the middle row (column) of the filter, those of odd ones the last and, a
// pixel of dy further on, the first: u[row odd][column odd][I / 16][rows][columns][O][16].
template <int CI, int CO>
void halve_back(const Source& in, const Norm& norm, const float* u, const float* m, float* dx, float* dw, double* two,
                long H, long Wd, long I_, long O_, long begin, long end) {
  const long I = CI ? CI : I_, O = CO ? CO : O_, h = H / 2, w = Wd / 2, wide = (Wd + 2) * I, narrow = (w + 1) * O;
  float *X = framed(H, wide, (h + 1) * narrow), *Y = X + (H + 2) * wide;  // dy with zeros below and to the right
  for (long n = begin; n < end; n++) {
    frame(in.x, n, H, Wd, I, X);
    for (long r = 0; r < h; r++) back(norm, (n * h + r) * w * O, w * O, O, Y + r * narrow);
    for (long r = 0; r < h; r += BAND)
      direct_weights(X + 2 * r * wide, Y + r * narrow, dw, 2, wide, narrow, r + BAND < h ? BAND : h - r, w, I, O);
    for (long p = 0; p < h * w; p++) {
      float *above = dx + (n * H * Wd + p / w * 2 * Wd + p % w * 2) * I, *below = above + Wd * I;
      for (long c = 0; c < I; c += W) {
        const vec quarter = .25f * load(m + (n * h * w + p) * O + (O - I) / 2 + c);
        store(above + c, quarter), store(above + I + c, quarter), store(below + c, quarter), store(below + I + c, quarter);
      }
    }
    const float* matrix = u;
    for (int odd = 0; odd < 4; odd++) {
      const long down = odd / 2, right = odd % 2, K = (1 + right) * O;
      for (long j = 0; j < I; j += COLUMNS, matrix += (1 + down) * K * COLUMNS)
        for (long r = 0; r < h; r++)
          pieces(w, [=](auto R, long t) __attribute__((always_inline)) {
            product<R, 0, true>(Y + r * narrow + t * O, O, 1, matrix, COLUMNS,
                                dx + ((n * H + 2 * r + down) * Wd + 2 * t + right) * I + j, 2 * I, K, 1 + down, narrow,
                                K * COLUMNS);
          });
    }
    if (!in.outer) continue;
    for (long r = 0; r < H; r++)
      add_sums((n * H + r) * Wd, (n * H + r + 1) * Wd, I, two, passed_at(dx, in.x, in.y, in.outer, I));
  }
}

Shape shape_of(long N, long H, long Wd) { return {N, H, Wd, (H + 3) / 4, (Wd + 3) / 4}; }

// two[2][C] of all pixels: float within 256 of them, double beyond
template <class F>
void two_sums(long pixels, long C, int threads, double* two, F at) {
  const long parts = parts_of(pixels, C, threads);
  double* all = (double*)sums.of(4 * parts * C);
  memset(all, 0, 2 * parts * C * sizeof(double));
  share(pixels, parts, threads, [=](long begin, long end, long t) {
    for (long p = begin; p < end; p += 256) add_sums(p, p + 256 < end ? p + 256 : end, C, all + 2 * t * C, at);
  });
  gather(all, parts, 2 * C, two);
}

// The sums of back_at. With a residual, `out` tells what passed instead, and m, which is the residual's gradient, is
// written.
void back_sums(const float* g, const float* out, const float* y, const float* kept, float* m, long pixels, long C,
               double* two, int threads) {
  if (!m) return two_sums(pixels, C, threads, two, back_at(g, y, kept, C));
  two_sums(pixels, C, threads, two, [=](long p, long c, vec& u, vec& v) __attribute__((always_inline)) {
    const long at = p * C + c;
    store(m + at, load(g + at));
    passed_at(m, out, y, kept, C)(p, c, u, v);
  });
}

// From these sums the gradients of a norm's scale and shift, and the coefficients of dy
Norm norm_of(const float* g, const float* y, const float* kept, bool passed, const double* two, const Parameters& d,
             long pixels, long C) {
  float *slope = coefficients.of(2 * C), *level = slope + C;
  for (long c = 0; c < C; c++) {
    const double r = kept[C + c], scale = kept[2 * C + c], k = -scale * r * r * two[C + c] / pixels;
    slope[c] = k;
    level[c] = -scale * two[c] / pixels - k * kept[c];
    d.scale[c] = two[C + c] * r;
    d.shift[c] = two[c];
  }
  return {g, y, kept + 2 * C, kept + 3 * C, slope, level, passed};
}

// From the sums of moments_at: the running statistics, and kept[4][C] for the way back: mean,
// 1 / standard deviation, scale, shift
void moments_done(const double* two, const float* around, const Parameters& p, const Statistics& running, float* kept,
                  long pixels, long C) {
  for (long c = 0; c < C; c++) {
    const double offset = two[c] / pixels, m = offset + around[c];
    const double spread = two[C + c] / pixels - offset * offset;
    const double variance = spread < 0 ? 0 : spread, r = 1 / std::sqrt(variance + running.eps);
    kept[c] = m;
    kept[C + c] = r;
    kept[2 * C + c] = p.scale[c] * r;
    kept[3 * C + c] = p.shift[c] - m * p.scale[c] * r;
    running.mean[c] += running.momentum * (m - running.mean[c]);
    running.var[c] += running.momentum * (variance * pixels / (pixels - 1) - running.var[c]);
  }
}

// Sizes known when this is compiled are a fifth faster; these are a CIFAR ResNet's
#define CHANNELS(f, ...)                        \
  (I == 16 && O == 16   ? f<16, 16>             \
   : I == 32 && O == 32 ? f<32, 32>             \
   : I == 64 && O == 64 ? f<64, 64> : f<0, 0>)(__VA_ARGS__)
#define GROWING(f, ...)                         \
  (I == 3 && O == 16    ? f<3, 16>              \
   : I == 16 && O == 32 ? f<16, 32>             \
   : I == 32 && O == 64 ? f<32, 64> : f<0, 0>)(__VA_ARGS__)

bool by_tiles(long stride, long I) { return stride == 1 && I % COLUMNS == 0; }

// U[36][O / 16][I][16] of the weights; turned by 180 degrees, from O to I, for the input's gradient
const float* tiles_filter(Parameters p, long I, long O, bool turned, int threads) {
  if (turned) std::swap(I, O), std::swap(p.si, p.so);
  float* U = filters.of(36 * I * O);
#pragma omp parallel for num_threads(threads)
  for (long i = 0; i < I; i++)
    for (long o = 0; o < O; o += W) {
      vec g[3][3], t[6][3];
      for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
          for (int k = 0; k < W; k++)
            g[a][b][k] = p.w[(o + k) * p.so + i * p.si + (turned ? 2 - a : a) * p.sy + (turned ? 2 - b : b) * p.sx];
      UNROLL for (int a = 0; a < 6; a++)
        UNROLL for (int b = 0; b < 3; b++) t[a][b] = G[a][0] * g[0][b] + G[a][1] * g[1][b] + G[a][2] * g[2][b];
      UNROLL for (int a = 0; a < 6; a++)
        UNROLL for (int b = 0; b < 6; b++)
          store(U + ((a * 6 + b) * O + o / COLUMNS * COLUMNS) * I + i * COLUMNS + o % COLUMNS, G[b][0] * t[a][0] + G[b][1] * t[a][1] + G[b][2] * t[a][2]);
    }
  return U;
}

// u[O / 16][3 rows][3 columns][I][16]
const float* direct_filter(const Parameters& p, long I, long O) {
  float *u = filters.of(9 * I * O), *to = u;
  for (long o = 0; o < O; o += COLUMNS)
    for (int tap = 0; tap < 9; tap++)
      for (long i = 0; i < I; i++, to += COLUMNS)
        for (int k = 0; k < COLUMNS; k++) to[k] = p.w[(o + k) * p.so + i * p.si + tap / 3 * p.sy + tap % 3 * p.sx];
  return u;
}

// u of halve_back
const float* halve_filter(const Parameters& p, long I, long O) {
  float *u = filters.of(9 * I * O), *to = u;
  const int taps[2][2] = {{1, 1}, {2, 0}};
  for (int odd = 0; odd < 4; odd++)
    for (long j = 0; j < I; j += COLUMNS)
      for (int a = 0; a <= odd / 2; a++)
        for (int b = 0; b <= odd % 2; b++)
          for (long o = 0; o < O; o++, to += COLUMNS)
            for (int k = 0; k < COLUMNS; k++)
              to[k] = p.w[o * p.so + (j + k) * p.si + taps[odd / 2][a] * p.sy + taps[odd % 2][b] * p.sx];
  return u;
}

// d.w from the parts' sums, all[part][36][I][O]
void tiles_sum(const float* all, long parts, const Parameters& d, long I, long O, int threads) {
  const long size = 36 * I * O;
#pragma omp parallel for num_threads(threads)
  for (long i = 0; i < I; i++)
    for (long o = 0; o < O; o += W) {
      vec t[3][6];
      UNROLL for (int b = 0; b < 6; b++) {
        vec u[6];
        UNROLL for (int k = 0; k < 6; k++) {
          const long e = ((k * 6 + b) * I + i) * O + o;
          u[k] = load(all + e);
          for (long h = 1; h < parts; h++) u[k] += load(all + h * size + e);
        }
        UNROLL for (int a = 0; a < 3; a++) {
          t[a][b] = vec{};
          UNROLL for (int k = 0; k < 6; k++) t[a][b] += G[k][a] * u[k];
        }
      }
      UNROLL for (int a = 0; a < 3; a++)
        UNROLL for (int b = 0; b < 3; b++) {
          vec v = {};
          UNROLL for (int k = 0; k < 6; k++) v += G[k][b] * t[a][k];
          for (int k = 0; k < W; k++) d.w[(o + k) * d.so + i * d.si + a * d.sy + b * d.sx] = v[k];
        }
    }
}

// The same from all[part][3 rows][3 columns][I][O]
void direct_sum(const float* all, long parts, const Parameters& d, long I, long O) {
  const long size = 9 * I * O;
  for (long e = 0; e < size; e++) {
    float sum = 0;
    for (long t = 0; t < parts; t++) sum += all[t * size + e];
    const long tap = e / (I * O), i = e / O % I, o = e % O;
    d.w[o * d.so + i * d.si + tap / 3 * d.sy + tap % 3 * d.sx] = sum;
  }
}

// Into y the convolution of x or, with another norm's kept `before`, of relu(norm(x)); where `kept` is given, also the
// statistics of the outcome
void convolve(const float* x, const float* before, const Parameters& p, const Statistics* running, long stride,
              float* y, float* kept, long N, long H, long Wd, long I, long O, int threads) {
  const Shape s = shape_of(N, H, Wd);
  const bool tiles = by_tiles(stride, I);
  const float* U = tiles ? tiles_filter(p, I, O, false, threads) : direct_filter(p, I, O);
  const long h = (H + stride - 1) / stride, w = (Wd + stride - 1) / stride;
  const long count = tiles ? s.N * s.th : N, parts = parts_of(count, O, threads);
  const auto part = [=](long rows, const float* around, double* two, long begin, long end) {
    if (tiles) CHANNELS(tiles_convolve, x, before, U, y, s, I, O, around, two, begin, end);
    else GROWING(direct, x, U, y, stride, H, Wd, I, O, rows, around, two, begin, end);
  };
  float* around = nullptr;
  double *two = nullptr, *all = nullptr;
  if (kept) {  // the first pixel is taken off first, which keeps a large mean from swallowing the variance
    part(1, nullptr, nullptr, 0, 1);
    two = (double*)moments.of((4 * (parts + 1) + 1) * O);
    all = two + 2 * O;
    around = (float*)(all + 2 * parts * O);
    memcpy(around, y, O * sizeof(float));
    memset(all, 0, 2 * parts * O * sizeof(double));
  }
  share(count, parts, threads, [=](long begin, long end, long t) { part(h, around, all + 2 * t * O, begin, end); });
  if (!kept) return;
  gather(all, parts, 2 * O, two);
  moments_done(two, around, p, *running, kept, N * h * w, O);
}

// Gradients of relu(norm(convolve(in)) (+ residual)), of stride 1: of `in` (added to dx, or put there) and residual where
// not null, and of the parameters. own_sums are those of this norm, if known; then g is what passed its ReLU, or y tells
// what did. Where `in` has a norm, source_sums[2][I] are its, and dx, of an outcome of a block, is what passes its ReLU.
void convolve_back(const float* g, const Source& in, const Parameters& p, const float* out, const float* y,
                   const float* kept, const double* own_sums, bool passed, float* dx, bool add, float* residual,
                   const Parameters& d, double* source_sums, long N, long H, long Wd, long I, long O, int threads) {
  const Shape s = shape_of(N, H, Wd);
  const bool tiles = by_tiles(1, I);
  const long count = tiles ? s.N * s.th : N, parts = parts_of(count, I > O ? I : O, threads);
  const long size = (tiles ? 36 : 9) * I * O;
  double *found = (double*)moments.of(4 * O + 4 * parts * I), *source_all = found + 2 * O;
  if (!own_sums) back_sums(g, out, y, kept, residual, N * H * Wd, O, found, threads);
  const Norm norm = norm_of(residual ? residual : g, y, kept, residual || passed, own_sums ? own_sums : found, d,
                            N * H * Wd, O);
  const float* U = dx ? tiles_filter(p, I, O, true, threads) : nullptr;
  memset(source_all, 0, 2 * parts * I * sizeof(double));
  float* all = sums.of(parts * size);
  share(count, parts, threads, [=](long begin, long end, long t) {
    float* dw = all + t * size;
    memset(dw, 0, size * sizeof(float));
    if (tiles) CHANNELS(tiles_back, in, norm, U, dx, add, dw, source_all + 2 * t * I, s, I, O, begin, end);
    else GROWING(direct_back, in.x, norm, dw, H, Wd, I, O, begin, end);
  });
  if (source_sums) gather(source_all, parts, 2 * I, source_sums);
  if (tiles) tiles_sum(all, parts, d, I, O, threads);
  else direct_sum(all, parts, d, I, O);
}

// The gradients through relu(norm(y)) and the convolution of stride 2 that made y of `in`, and through that shortcut,
// whose gradient is m; sums as convolve_back takes and leaves them
void strided_back(const float* g, const Source& in, const Parameters& p, const float* y, const float* kept,
                  const double* own_sums, const float* m, float* dx, const Parameters& d, double* source_sums, long N,
                  long H, long Wd, long I, long O, int threads) {
  const Norm norm = norm_of(g, y, kept, false, own_sums, d, N * H * Wd / 4, O);
  const long parts = parts_of(N, O, threads), size = 9 * I * O;
  const float* u = halve_filter(p, I, O);
  double* source_all = (double*)moments.of(4 * parts * I);
  memset(source_all, 0, 2 * parts * I * sizeof(double));
  float* all = sums.of(parts * size);
  share(N, parts, threads, [=](long begin, long end, long t) {
    memset(all + t * size, 0, size * sizeof(float));
    GROWING(halve_back, in, norm, u, m, dx, all + t * size, source_all + 2 * t * I, H, Wd, I, O, begin, end);
  });
  if (source_sums) gather(source_all, parts, 2 * I, source_sums);
  direct_sum(all, parts, d, I, O);
}

// out = relu(y scale + shift (+ residual))
void norm_relu(const float* y, const float* residual, const float* scale, const float* shift, float* out, long pixels,
               long C, int threads) {
  share(pixels, parts_of(pixels, C, threads), threads, [=](long begin, long end, long) {
    for (long p = begin * C; p < end * C; p += C)
      for (long c = 0; c < C; c += W) {
        vec v = load(y + p + c) * load(scale + c) + load(shift + c);
        if (residual) v += load(residual + p + c);
        store(out + p + c, relu(v));
      }
  });
}

// The same where the shortcut x has twice the height H and width and I channels: means of 2x2 pixels, between zeros for
// the channels it lacks
void norm_relu_pooled(const float* y, const float* x, const float* scale, const float* shift, float* out, long N,
                      long H, long Wd, long I, long C, int threads) {
  share(N * H, parts_of(N * H, C, threads), threads, [=](long begin, long end, long) {
    float *residual = scratch.of(C), *middle = residual + (C - I) / 2;
    memset(residual, 0, C * sizeof(float));
    for (long p = begin * Wd; p < end * Wd; p++) {
      const float *a = x + (p / Wd * 4 * Wd + p % Wd * 2) * I, *b = a + 2 * Wd * I;
      for (long c = 0; c < I; c += W)
        store(middle + c, .25f * ((load(a + c) + load(a + I + c)) + (load(b + c) + load(b + I + c))));
      for (long c = 0; c < C; c += W)
        store(out + p * C + c, relu((load(y + p * C + c) * load(scale + c) + load(shift + c)) + load(residual + c)));
    }
  });
}

// Two convolutions and a shortcut, in training: relu(norm2(convolve2(relu(norm1(convolve1(x))))) + shortcut), where x,
// of I channels, has height H and width W. Where I is not O the first convolution has a stride of 2, and the shortcut is
// that of norm_relu_pooled. hidden1, hidden2 and kept[2][4][O] are for the way back.
struct Block {
  Parameters first, second;
  Statistics running1, running2;
  float *hidden1, *hidden2, *kept, *out;
  long H, W, I, O;
};
// Its gradients, and memory of hidden1's size twice; where I is O, blocks may have the same
struct BlockBack {
  Parameters first, second;
  float *inner, *m;
};

void block(const float* x, const Block& b, long N, int threads) {
  const long stride = b.I == b.O ? 1 : 2, h = b.H / stride, w = b.W / stride;
  float* kept2 = b.kept + 4 * b.O;
  convolve(x, nullptr, b.first, &b.running1, stride, b.hidden1, b.kept, N, b.H, b.W, b.I, b.O, threads);
  convolve(b.hidden1, b.kept, b.second, &b.running2, 1, b.hidden2, kept2, N, h, w, b.O, b.O, threads);
  const float *scale = kept2 + 2 * b.O, *shift = scale + b.O;
  if (stride == 1) norm_relu(b.hidden2, x, scale, shift, b.out, N * h * w, b.O, threads);
  else norm_relu_pooled(b.hidden2, x, scale, shift, b.out, N, h, w, b.I, b.O, threads);
}

// From the outcome's gradient g; or, with the sums of norm2's, d.m has what of g passed the last ReLU. dx is that of x or,
// where x is another block's outcome, what passes its last ReLU, and source_sums the sums of its norm2. dx may be d.m
// where I is O.
void block_back(const float* g, const double* own_sums, const Source& in, const Block& b, const BlockBack& d, float* dx,
                double* source_sums, long N, int threads) {
  const long stride = b.I == b.O ? 1 : 2, h = b.H / stride, w = b.W / stride;
  double* two = (double*)between.of(4 * b.O);
  convolve_back(own_sums ? d.m : g, {b.hidden1, b.kept}, b.second, b.out, b.hidden2, b.kept + 4 * b.O, own_sums,
                own_sums, d.inner, false, own_sums ? nullptr : d.m, d.second, two, N, h, w, b.O, b.O, threads);
  if (stride == 1)  // the convolution adds its own to the shortcut's
    convolve_back(d.inner, in, b.first, nullptr, b.hidden1, b.kept, two, false, dx, true, nullptr, d.first, source_sums,
                  N, b.H, b.W, b.I, b.O, threads);
  else
    strided_back(d.inner, in, b.first, b.hidden1, b.kept, two, d.m, dx, d.first, source_sums, N, b.H, b.W, b.I, b.O,
                 threads);
}

// What the callers in Python get: 0, or 1 where there was no memory
template <class F>
int code(F body) {
  try {
    body();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

// Tensors are (N, H, W, C): x of I channels, all others of O; kept[4][O] is what moments_done leaves
extern "C" {

int longtail_convolve(const float* x, const Parameters* p, const Statistics* running, float* y, float* kept, long N,
                       long H, long Wd, long I, long O, int threads) {
  return code([&] { convolve(x, nullptr, *p, running, 1, y, kept, N, H, Wd, I, O, threads); });
}

int longtail_convolve_back(const float* g, const float* x, const Parameters* p, const float* out, const float* y,
                            const float* kept, float* dx, float* residual, const Parameters* d, long N, long H,
                            long Wd, long I, long O, int threads) {
  return code([&] {
    convolve_back(g, {x}, *p, out, y, kept, nullptr, false, dx, false, residual, *d, nullptr, N, H, Wd, I, O, threads);
  });
}

int longtail_blocks(const float* x, const Block* blocks, long count, long N, int threads) {
  return code([&] { for (long i = 0; i < count; x = blocks[i++].out) block(x, blocks[i], N, threads); });
}

// dx is the first d.m where its I is O
int longtail_blocks_back(const float* g, const float* x, const Block* blocks, const BlockBack* d, float* dx, long count,
                          long N, int threads) {
  return code([&] {
    double* sums = (double*)ended.of(4 * blocks[count - 1].O);  // channels never grow on the way back
    for (long i = count - 1; i > 0; i--) {
      const Block& before = blocks[i - 1];
      block_back(g, i < count - 1 ? sums : nullptr, {before.out, nullptr, before.hidden2, before.kept + 4 * before.O},
                 blocks[i], d[i], d[i - 1].m, sums, N, threads);
    }
    block_back(g, count > 1 ? sums : nullptr, {x}, blocks[0], d[0], dx, nullptr, N, threads);
  });
}

// Batch norm's statistics of y
int longtail_norm(const float* y, const Parameters* p, const Statistics* running, float* kept, long pixels, long C,
                   int threads) {
  return code([&] {
    double* two = (double*)moments.of(4 * C);
    two_sums(pixels, C, threads, two, moments_at(y, y, C));
    moments_done(two, y, *p, *running, kept, pixels, C);
  });
}

int longtail_norm_relu(const float* y, const float* residual, const float* scale, const float* shift, float* out,
                        long pixels, long C, int threads) {
  return code([&] { norm_relu(y, residual, scale, shift, out, pixels, C, threads); });
}

// dy, the residual's gradient (if any) and norm's of g, the gradient of relu(norm(y) (+ residual))
int longtail_norm_back(const float* g, const float* out, const float* y, const float* kept, float* dy, float* residual,
                        const Parameters* d, long pixels, long C, int threads) {
  return code([&] {
    double* found = (double*)moments.of(4 * C);
    back_sums(g, out, y, kept, residual, pixels, C, found, threads);
    const Norm norm = norm_of(residual ? residual : g, y, kept, residual, found, *d, pixels, C);
    share(pixels, parts_of(pixels, C, threads), threads, [=](long begin, long end, long) {
      for (long p = begin; p < end; p += 32) back(norm, p * C, (p + 32 < end ? 32 : end - p) * C, C, dy + p * C);
    });
  });
}
}
