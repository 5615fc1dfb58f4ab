By0J<V[rWWzyvic-=_.
**
W_W[W|j~n`]?MM
O>WVR^[ukgmhOM/./N;