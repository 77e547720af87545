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
#include <omp.h>

namespace {

#ifdef __AVX512F__
constexpr int W = 16, ROWS = 12;  // floats of a register; rows of a product that registers hold
#else
constexpr int W = 8, ROWS = 6;
#endif
constexpr int COLUMNS = 16, NV = COLUMNS / W;

typedef float vec __attribute__((vector_size(W * 4), aligned(4), may_alias));
#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#ifdef __x86_64__
#define HOLD(v) __asm__("" : "+x"(v))  // in a register: GCC would load it anew for each row
#else
#define HOLD(v)
#endif
INLINE vec load(const float* p) { return *(const vec*)p; }
INLINE void store(float* p, vec v) { *(vec*)p = v; }
INLINE vec splat(float a) { return vec{} + a; }

struct Shape { long N, H, W, th, tw; };
struct Four { vec a, b, c, d; };
struct Six { vec a, b, c, d, e, f; };

struct Memory {  // kept by each thread from call to call: new pages cost more than the arithmetic
  float* at = nullptr;
  size_t size = 0;
  float* of(size_t floats) {
    if (floats > size) {
      free(at);
      at = (float*)aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
      if (!at) abort();
      size = floats;
    }
    return at;
  }
  ~Memory() { free(at); }
};
thread_local Memory scratch, sums, moments;

// C[r][0:16] (+)= sum over k of A[r rs + k ks] B[k ldb + 0:16]
template <int R, int K, bool ADD>
INLINE void product(const float* A, long rs, long ks, const float* B, long ldb, float* C, long ldc, long k_) {
  vec c[R][NV];
  UNROLL for (int r = 0; r < R; r++)
    UNROLL for (int v = 0; v < NV; v++) c[r][v] = ADD ? load(C + r * ldc + v * W) : vec{};
  const long n = K ? K : k_;
  _Pragma("GCC unroll 4")
  for (long k = 0; k < n; k++, A += ks, B += ldb) {
    vec b[NV];
    UNROLL for (int v = 0; v < NV; v++) {
      b[v] = load(B + v * W);
      HOLD(b[v]);
    }
    UNROLL for (int r = 0; r < R; r++) {
      const float a = A[r * rs];
      UNROLL for (int v = 0; v < NV; v++) c[r][v] += a * b[v];
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

// Down the columns of the input for the tiles of row ty: six rows of 4 tw + 2 pixels, zeros outside the image
INLINE void down(const float* x, Shape s, long C, long strip, float* S, long row) {
  const long n = strip / s.th, ty = strip % s.th, valid = s.W * C, wide = (4 * s.tw + 2) * C;
  const vec none = {};
  const float* p[6];
  bool in[6];
  for (int i = 0; i < 6; i++) {
    const long y = ty * 4 - 1 + i;
    in[i] = y >= 0 && y < s.H;
    p[i] = x + (n * s.H + (in[i] ? y : 0)) * valid;
    for (long c = 0; c < C; c += W) store(S + i * row + c, none);
    for (long c = C + valid; c < wide; c += W) store(S + i * row + c, none);
  }
  float* q = S + C;
  if (in[0] && in[4] && in[5]) {
    for (long c = 0; c < valid; c += W)
      put(q + c, row, enter(load(p[0] + c), load(p[1] + c), load(p[2] + c), load(p[3] + c), load(p[4] + c), load(p[5] + c)));
  } else {
    for (long c = 0; c < valid; c += W)
      put(q + c, row, enter(in[0] ? load(p[0] + c) : none, load(p[1] + c), in[2] ? load(p[2] + c) : none,
                            in[3] ? load(p[3] + c) : none, in[4] ? load(p[4] + c) : none, in[5] ? load(p[5] + c) : none));
  }
}

// The same for the output's gradient: six rows of 4 tw pixels
INLINE void down_back(const float* g, Shape s, long C, long strip, float* S, long row) {
  const long n = strip / s.th, ty = strip % s.th, valid = s.W * C, wide = 4 * s.tw * C;
  const vec none = {};
  const float* p[4];
  bool in[4];
  for (int i = 0; i < 4; i++) {
    in[i] = ty * 4 + i < s.H;
    p[i] = g + (n * s.H + (in[i] ? ty * 4 + i : 0)) * valid;
  }
  for (int i = 0; i < 6; i++)
    for (long c = valid; c < wide; c += W) store(S + i * row + c, none);
  for (long c = 0; c < valid; c += W)
    put(S + c, row, enter_back(load(p[0] + c), in[1] ? load(p[1] + c) : none, in[2] ? load(p[2] + c) : none,
                               in[3] ? load(p[3] + c) : none));
}

// Across one of the six rows: V[6][tile][C]
template <int CC>
INLINE void across(const float* S, long tw, long C_, float* V, long step) {
  const long C = CC ? CC : C_;
  for (long tx = 0; tx < tw; tx++)
    for (long c = 0; c < C; c += W) {
      const float* a = S + tx * 4 * C + c;
      put(V + tx * C + c, step,
          enter(load(a), load(a + C), load(a + 2 * C), load(a + 3 * C), load(a + 4 * C), load(a + 5 * C)));
    }
}

template <int CC>
INLINE void across_back(const float* S, long tw, long C_, float* Z, long step) {
  const long C = CC ? CC : C_;
  for (long tx = 0; tx < tw; tx++)
    for (long c = 0; c < C; c += W) {
      const float* a = S + tx * 4 * C + c;
      put(Z + tx * C + c, step, enter_back(load(a), load(a + C), load(a + 2 * C), load(a + 3 * C)));
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

INLINE void out_down(float* y, Shape s, long C, long strip, const float* D, long row) {
  const long n = strip / s.th, ty = strip % s.th, valid = s.W * C, left = s.H - ty * 4;
  float* q = y + (n * s.H + ty * 4) * valid;
  for (long c = 0; c < valid; c += W) {
    const float* d = D + c;
    Four f = leave(load(d), load(d + row), load(d + 2 * row), load(d + 3 * row), load(d + 4 * row), load(d + 5 * row));
    store(q + c, f.a);
    if (left > 1) store(q + valid + c, f.b);
    if (left > 2) store(q + 2 * valid + c, f.c);
    if (left > 3) store(q + 3 * valid + c, f.d);
  }
}

// Run body(first, last) on equal shares of `count`, one a thread
template <class F>
void share(long count, int threads, F body) {
#pragma omp parallel num_threads(threads)
  {
    const long n = omp_get_num_threads(), t = omp_get_thread_num();
    body(count * t / n, count * (t + 1) / n, t);
  }
}

struct Plan {  // rows of tiles a block, and the sizes of its buffers, padded so that rows share no cache set
  long strips, rows, v, z, strip_in, row_in, strip_out, row_out;
  Plan(Shape s, long I, long O) {
    strips = s.N * s.th;
    rows = 48 / s.tw > 1 ? 48 / s.tw : 1;
    v = rows * s.tw * I + 16, z = rows * s.tw * O + 16;
    strip_in = (4 * s.tw + 2) * I, row_in = rows * strip_in + 16;
    strip_out = 4 * s.tw * O, row_out = rows * strip_out + 16;
  }
};

template <int CI, int CO>
void convolve(const float* x, const float* U, float* y, Shape s, long I_, long O_, int threads) {
  const Plan plan(s, I_, O_);
  const long I = CI ? CI : I_, O = CO ? CO : O_;
  share(plan.strips, threads, [=](long begin, long end, long) {
    float* V = scratch.of(6 * (plan.v + plan.row_in + plan.row_out));
    float *S = V + 6 * plan.v, *D = S + 6 * plan.row_in;
    for (long first = begin; first < end; first += plan.rows) {
      const long n = first + plan.rows < end ? plan.rows : end - first, tiles = n * s.tw;
      for (long r = 0; r < n; r++) down(x, s, I, first + r, S + r * plan.strip_in, plan.row_in);
      for (int i = 0; i < 6; i++) {
        for (long r = 0; r < n; r++)
          across<CI>(S + i * plan.row_in + r * plan.strip_in, s.tw, I, V + r * s.tw * I, plan.v);
        const float* u = U + i * 6 * I * O;
        float* d = D + i * plan.row_out;
        for (long j = 0; j < O; j += COLUMNS) {
          long t = 0;
          for (; t + ROWS <= tiles; t += ROWS) products<ROWS, CI, CO>(V + t * I, plan.v, u + j * I, d + t * 4 * O + j, I, O);
          for (; t + 2 <= tiles; t += 2) products<2, CI, CO>(V + t * I, plan.v, u + j * I, d + t * 4 * O + j, I, O);
          for (; t < tiles; t++) products<1, CI, CO>(V + t * I, plan.v, u + j * I, d + t * 4 * O + j, I, O);
        }
      }
      for (long r = 0; r < n; r++) out_down(y, s, O, first + r, D + r * plan.strip_out, plan.row_out);
    }
  });
}

template <int CI, int CO>
void correlate(const float* x, const float* g, float* dU, Shape s, long I_, long O_, int threads) {
  const Plan plan(s, I_, O_);
  const long I = CI ? CI : I_, O = CO ? CO : O_;
  share(plan.strips, threads, [=](long begin, long end, long thread) {
    float* V = scratch.of(6 * (plan.v + plan.z + plan.row_in + plan.row_out));
    float *Z = V + 6 * plan.v, *S = Z + 6 * plan.z, *D = S + 6 * plan.row_in;
    float* mine = dU + thread * 36 * I * O;
    memset(mine, 0, 36 * I * O * sizeof(float));
    for (long first = begin; first < end; first += plan.rows) {
      const long n = first + plan.rows < end ? plan.rows : end - first, tiles = n * s.tw;
      for (long r = 0; r < n; r++) {
        down(x, s, I, first + r, S + r * plan.strip_in, plan.row_in);
        down_back(g, s, O, first + r, D + r * plan.strip_out, plan.row_out);
      }
      for (int i = 0; i < 6; i++) {
        for (long r = 0; r < n; r++) {
          across<CI>(S + i * plan.row_in + r * plan.strip_in, s.tw, I, V + r * s.tw * I, plan.v);
          across_back<CO>(D + i * plan.row_out + r * plan.strip_out, s.tw, O, Z + r * s.tw * O, plan.z);
        }
        for (int p = 0; p < 6; p++)
          for (long j = 0; j < O; j += COLUMNS) {
            float* u = mine + (i * 6 + p) * I * O + j;
            const float *v = V + p * plan.v, *z = Z + p * plan.z + j;
            long k = 0;
            for (; k + ROWS <= I; k += ROWS) product<ROWS, 0, true>(v + k, 1, I, z, O, u + k * O, O, tiles);
            for (; k + 4 <= I; k += 4) product<4, 0, true>(v + k, 1, I, z, O, u + k * O, O, tiles);
          }
      }
    }
  });
}

Shape shape_of(long N, long H, long Wd) { return {N, H, Wd, (H + 3) / 4, (Wd + 3) / 4}; }

// Sums over pixels of two numbers a channel, float within 256 pixels and double beyond, threads in their order
template <class F>
void two_sums(long pixels, long C, int threads, double* first, double* second, F at) {
  double* all = (double*)sums.of(4 * threads * C);
  memset(all, 0, 2 * threads * C * sizeof(double));
  share(pixels, threads, [&](long begin, long end, long t) {
    double *a = all + 2 * t * C, *b = a + C;
    for (long p = begin; p < end; p += 256) {
      const long last = p + 256 < end ? p + 256 : end;
      for (long c = 0; c < C; c += W) {
        vec u[4] = {}, v[4] = {};
        long q = p;
        for (; q + 4 <= last; q += 4)
          UNROLL for (int k = 0; k < 4; k++) at(q + k, c, u[k], v[k]);
        for (; q < last; q++) at(q, c, u[0], v[0]);
        const vec su = (u[0] + u[1]) + (u[2] + u[3]), sv = (v[0] + v[1]) + (v[2] + v[3]);
        for (int k = 0; k < W; k++) a[c + k] += su[k], b[c + k] += sv[k];
      }
    }
  });
  for (long c = 0; c < C; c++) {
    first[c] = second[c] = 0;
    for (int t = 0; t < threads; t++) first[c] += all[2 * t * C + c], second[c] += all[2 * t * C + C + c];
  }
}

// Where the ReLU let pass: without a residual y tells, and `out` need not be read
template <bool RESIDUAL>
INLINE vec passed(const float* g, const float* out, const float* y, const float* scale, const float* shift, long at,
                  long c) {
  const vec o = RESIDUAL ? load(out + at) : load(y + at) * load(scale + c) + load(shift + c);
  return o <= 0 ? vec{} : load(g + at);
}

template <bool RESIDUAL>
void norm_relu_back(const float* g, const float* out, const float* y, const float* kept, float* dy, float* residual,
                    float* dweight, float* dbias, long pixels, long C, int threads) {
  const float *mean = kept, *inverse = kept + C, *scale = kept + 2 * C, *shift = kept + 3 * C;
  double* first = (double*)moments.of(6 * C);
  double* second = first + C;
  two_sums(pixels, C, threads, first, second, [=](long p, long c, vec& u, vec& v) __attribute__((always_inline)) {
    const vec m = passed<RESIDUAL>(g, out, y, scale, shift, p * C + c, c);
    u += m;
    v += m * (load(y + p * C + c) - load(mean + c));
  });
  // dy = scale m + slope y + level, with m the gradient that passed
  float *slope = (float*)(second + C), *level = slope + C;
  for (long c = 0; c < C; c++) {
    const double r = inverse[c], k = -scale[c] * r * r * second[c] / pixels;
    slope[c] = k;
    level[c] = -scale[c] * first[c] / pixels - k * mean[c];
    dweight[c] = second[c] * r;
    dbias[c] = first[c];
  }
  share(pixels, threads, [=](long begin, long end, long) {
    for (long p = begin * C; p < end * C; p += C)
      for (long c = 0; c < C; c += W) {
        const vec m = passed<RESIDUAL>(g, out, y, scale, shift, p + c, c);
        store(dy + p + c, load(scale + c) * m + (load(slope + c) * load(y + p + c) + load(level + c)));
        if (RESIDUAL) store(residual + p + c, m);
      }
  });
}

}  // namespace

extern "C" {

// U[36][O / 16][I][16] of weights (o, i, y, x) at the given strides; turned by 180 degrees for the input's gradient
void longtail_filter(const float* w, long so, long si, long sy, long sx, float* U, long I, long O, int turned) {
  for (long i = 0; i < I; i++)
    for (long o = 0; o < O; o += W) {
      vec g[3][3], t[6][3];
      for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
          for (int k = 0; k < W; k++)
            g[a][b][k] = w[(o + k) * so + i * si + (turned ? 2 - a : a) * sy + (turned ? 2 - b : b) * sx];
      UNROLL for (int a = 0; a < 6; a++)
        UNROLL for (int b = 0; b < 3; b++) t[a][b] = G[a][0] * g[0][b] + G[a][1] * g[1][b] + G[a][2] * g[2][b];
      UNROLL for (int a = 0; a < 6; a++)
        UNROLL for (int b = 0; b < 6; b++)
          store(U + ((a * 6 + b) * O + o / COLUMNS * COLUMNS) * I + i * COLUMNS + o % COLUMNS, G[b][0] * t[a][0] + G[b][1] * t[a][1] + G[b][2] * t[a][2]);
    }
}

void longtail_convolve(const float* x, const float* U, float* y, long N, long H, long Wd, long I, long O, int threads) {
  const Shape s = shape_of(N, H, Wd);
  if (I == 16 && O == 16) convolve<16, 16>(x, U, y, s, I, O, threads);
  else if (I == 32 && O == 32) convolve<32, 32>(x, U, y, s, I, O, threads);
  else if (I == 64 && O == 64) convolve<64, 64>(x, U, y, s, I, O, threads);
  else convolve<0, 0>(x, U, y, s, I, O, threads);
}

// The weights' gradient, at the given strides, of input x and output's gradient g
void longtail_correlate(const float* x, const float* g, float* dw, long so, long si, long sy, long sx, long N, long H,
                        long Wd, long I, long O, int threads) {
  const Shape s = shape_of(N, H, Wd);
  float* dU = sums.of(threads * 36 * I * O);
  memset(dU, 0, threads * 36 * I * O * sizeof(float));
  if (I == 16 && O == 16) correlate<16, 16>(x, g, dU, s, I, O, threads);
  else if (I == 32 && O == 32) correlate<32, 32>(x, g, dU, s, I, O, threads);
  else if (I == 64 && O == 64) correlate<64, 64>(x, g, dU, s, I, O, threads);
  else correlate<0, 0>(x, g, dU, s, I, O, threads);
  for (long i = 0; i < I; i++)
    for (long o = 0; o < O; o += W) {
      vec t[3][6];
      UNROLL for (int b = 0; b < 6; b++) {
        vec u[6];
        UNROLL for (int k = 0; k < 6; k++) {
          const long e = ((k * 6 + b) * I + i) * O + o;
          u[k] = load(dU + e);
          for (int h = 1; h < threads; h++) u[k] += load(dU + h * 36 * I * O + e);
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
          for (int k = 0; k < W; k++) dw[(o + k) * so + i * si + a * sy + b * sx] = v[k];
        }
    }
}

// out = relu(y scale + shift (+ residual))
void longtail_norm_relu(const float* y, const float* residual, const float* scale, const float* shift, float* out,
                        long pixels, long C, int threads) {
  share(pixels, threads, [=](long begin, long end, long) {
    for (long p = begin * C; p < end * C; p += C)
      for (long c = 0; c < C; c += W) {
        vec v = load(y + p + c) * load(scale + c) + load(shift + c);
        if (residual) v += load(residual + p + c);
        store(out + p + c, v < 0 ? vec{} : v);  // NaN stays NaN
      }
  });
}

// relu(batch norm of y (+ residual)) and, for the way back, kept[4][C]: mean, 1 / standard deviation, scale, shift
void longtail_norm_relu_train(const float* y, const float* residual, const float* weight, const float* bias,
                              float* running_mean, float* running_var, double momentum, double eps, float* out,
                              float* kept, long pixels, long C, int threads) {
  // the first pixel is taken off first, which keeps a large mean from swallowing the variance
  double* first = (double*)moments.of(4 * C);
  double* second = first + C;
  two_sums(pixels, C, threads, first, second, [=](long p, long c, vec& u, vec& v) __attribute__((always_inline)) {
    const vec d = load(y + p * C + c) - load(y + c);
    u += d;
    v += d * d;
  });
  float *mean = kept, *inverse = kept + C, *scale = kept + 2 * C, *shift = kept + 3 * C;
  for (long c = 0; c < C; c++) {
    const double offset = first[c] / pixels, m = offset + y[c];
    const double spread = second[c] / pixels - offset * offset;
    const double variance = spread < 0 ? 0 : spread, r = 1 / std::sqrt(variance + eps);
    mean[c] = m;
    inverse[c] = r;
    scale[c] = weight[c] * r;
    shift[c] = bias[c] - m * weight[c] * r;
    running_mean[c] += momentum * (m - running_mean[c]);
    running_var[c] += momentum * (variance * pixels / (pixels - 1) - running_var[c]);
  }
  longtail_norm_relu(y, residual, scale, shift, out, pixels, C, threads);
}

// dy, the residual's gradient (if any), dweight and dbias of g, the gradient of out
void longtail_norm_relu_back(const float* g, const float* out, const float* y, const float* kept, float* dy,
                             float* residual, float* dweight, float* dbias, long pixels, long C, int threads) {
  if (residual) norm_relu_back<true>(g, out, y, kept, dy, residual, dweight, dbias, pixels, C, threads);
  else norm_relu_back<false>(g, out, y, kept, dy, residual, dweight, dbias, pixels, C, threads);
}
}
