"""The distillation methods, one file each: the residual, and a configuration that builds a `Distiller`.

With e_p, e_n and e_0 the predictions for the positive prompt, the negative prompt and no text, the guided one
e_s = e_n + s (e_p - e_n), and x the noisy image at timestep t, the residuals are:

    sds       e_s(x, t) - noise
    ssd       e_s(x, t) + sum_k mu_k h_k
    vsd       e_s(x, t) - e_phi(x, t),  phi a LoRA denoiser
    csd       s ((e_p - e_0) - k (e_n - e_0))
    nfsd      (e_0 for t < 200, else e_0 - e_n) + s (e_p - e_0)
    bridge    s (e_p - e_n)
    asd       e_s(x, t) - e_p(x', t'),   t' = t + r (t - t_min)
    ism       e_s(x_t, t) - e_0(x_s, s),  x_s and x_t by DDIM inversion
    sdi       e_s(x_t, t) - eps_t,   x_t = alpha clean + sigma eps_t by it
"""
