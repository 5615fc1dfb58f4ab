/* Field numbers of onnx.proto (IR 13), as the reader and the writer use them. */
#ifndef ENGINE_ONNX_PROTO_H
#define ENGINE_ONNX_PROTO_H

enum { /* ModelProto */
    M_IR_VERSION = 1,
    M_PRODUCER_NAME = 2,
    M_PRODUCER_VERSION = 3,
    M_GRAPH = 7,
    M_OPSET_IMPORT = 8,
    M_METADATA = 14,
    M_FUNCTIONS = 25,
};
enum { /* GraphProto */
    G_NODE = 1,
    G_NAME = 2,
    G_INITIALIZER = 5,
    G_INPUT = 11,
    G_OUTPUT = 12,
    G_VALUE_INFO = 13,
    G_SPARSE_INITIALIZER = 15,
};
enum { /* OperatorSetIdProto */
    OPSET_DOMAIN = 1,
    OPSET_VERSION = 2,
};
enum { /* StringStringEntryProto */
    P_KEY = 1,
    P_VALUE = 2,
};
enum { /* NodeProto */
    N_INPUT = 1,
    N_OUTPUT = 2,
    N_NAME = 3,
    N_OP_TYPE = 4,
    N_ATTRIBUTE = 5,
    N_DOMAIN = 7,
    N_METADATA = 9,
};
enum { /* AttributeProto */
    A_NAME = 1,
    A_F = 2,
    A_I = 3,
    A_S = 4,
    A_T = 5,
    A_G = 6,
    A_FLOATS = 7,
    A_INTS = 8,
    A_STRINGS = 9,
    A_TYPE = 20,
    A_REF_NAME = 21,
};
enum { /* TensorProto */
    T_DIMS = 1,
    T_DATA_TYPE = 2,
    T_SEGMENT = 3,
    T_FLOAT_DATA = 4,
    T_INT32_DATA = 5,
    T_INT64_DATA = 7,
    T_NAME = 8,
    T_RAW_DATA = 9,
    T_DOUBLE_DATA = 10,
    T_UINT64_DATA = 11,
    T_EXTERNAL_DATA = 13,
    T_DATA_LOCATION = 14,
};
enum { /* ValueInfoProto */
    V_NAME = 1,
    V_TYPE = 2,
};
enum { TYPE_TENSOR = 1 };                /* TypeProto */
enum { TT_ELEM_TYPE = 1, TT_SHAPE = 2 }; /* TypeProto.Tensor */
enum { SHAPE_DIM = 1 };                  /* TensorShapeProto */
enum { DIM_VALUE = 1, DIM_PARAM = 2 };   /* TensorShapeProto.Dimension */

#endif
