/* Packed values to objects: scalars at once, all else by the codec, which is asked wherever a
   value is not plain, so that there is one answer and one error. */

#ifndef SHMSTORE_DECODING_H
#define SHMSTORE_DECODING_H

#include "support.h"
#include "packed.h"

static PyObject *record_unpack, *record_field_of;

static int
decoding_setup(void)
{
    static const char *const names[] = {"unpack", "field_of"};
    static PyObject **const targets[] = {&record_unpack, &record_field_of};
    return import_names("shmstore.pure.record", 2, names, targets);
}

/* Decode packed bytes of any kind as the codec does; takes them over. */
static PyObject *
unpacked(PyObject *data)
{
    PyObject *value = data ? PyObject_CallOneArg(record_unpack, data) : NULL;
    Py_XDECREF(data);
    return value;
}

static PyObject *
packed_int(const unsigned char *at)
{
    switch (*at) {
    case 0xCC:
        return PyLong_FromLong(at[1]);
    case 0xCD:
        return PyLong_FromLong((long)packed_number(at + 1, 2));
    case 0xCE:
        return PyLong_FromLongLong((long long)packed_number(at + 1, 4));
    case 0xCF:
        return PyLong_FromUnsignedLongLong(packed_number(at + 1, 8));
    case 0xD0:
        return PyLong_FromLong((int8_t)at[1]);
    case 0xD1:
        return PyLong_FromLong((int16_t)packed_number(at + 1, 2));
    case 0xD2:
        return PyLong_FromLong((int32_t)packed_number(at + 1, 4));
    default:
        return PyLong_FromLongLong((int64_t)packed_number(at + 1, 8));
    }
}

static PyObject *
packed_float(const unsigned char *at)
{
    if (*at == 0xCA) {
        uint32_t bits = (uint32_t)packed_number(at + 1, 4);
        float number;
        memcpy(&number, &bits, 4);
        return PyFloat_FromDouble(number);
    }
    uint64_t bits = packed_number(at + 1, 8);
    double number;
    memcpy(&number, &bits, 8);
    return PyFloat_FromDouble(number);
}

/* Decode the value at ``at``, which was walked, as fresh plain objects. */
static PyObject *
packed_value(const unsigned char *at, const unsigned char *end)
{
    uint64_t size;
    unsigned char first = *at;
    const unsigned char *bytes;
    if (first < 0x80 || first >= 0xE0) {
        return PyLong_FromLong((signed char)first);
    }
    if ((bytes = packed_text(at, end, &size)) != NULL) {
        PyObject *text = PyUnicode_DecodeUTF8((const char *)bytes, (Py_ssize_t)size, NULL);
        if (text != NULL || !PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            return text;
        }
        PyErr_Clear();
    }
    else if (first == 0xC0) {
        Py_RETURN_NONE;
    }
    else if (first == 0xC2 || first == 0xC3) {
        return PyBool_FromLong(first & 1);
    }
    else if (first >= 0xC4 && first <= 0xC6) {
        if ((bytes = packed_contents(at, end, &size)) != NULL) {
            return PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size);
        }
    }
    else if (first == 0xCA || first == 0xCB) {
        return packed_float(at);
    }
    else if (first >= 0xCC && first <= 0xD3) {
        return packed_int(at);
    }
    return unpacked(PyBytes_FromStringAndSize((const char *)at, packed_skip(at, end) - at));
}

/* Decode one field of a packed map as plain objects; the caller holds on to ``fallback``. */
static PyObject *
decode_field(const unsigned char *data, size_t size, PyObject *field, PyObject *fallback)
{
    const unsigned char *at, *end = data + size;
    Py_ssize_t key_size;
    if (size > 0 && packed_kind(*data) == PACKED_MAP && PyUnicode_CheckExact(field)) {
        const char *key = PyUnicode_AsUTF8AndSize(field, &key_size);
        if (key == NULL) {
            PyErr_Clear();
        }
        else {
            switch (packed_find(data, end, key, (size_t)key_size, &at)) {
            case FIELD_FOUND:
                return packed_value(at, end);
            case FIELD_ABSENT:
                return Py_NewRef(fallback);
            default:
                break;
            }
        }
    }
    PyObject *copy = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *value =
        copy ? PyObject_CallFunctionObjArgs(record_field_of, copy, field, fallback, NULL) : NULL;
    Py_XDECREF(copy);
    return value;
}

#endif
