/* What the Python side of the engine shares: errors, keys and names.

   The module is loaded once in a process and keeps these objects for its life. */

#ifndef SHMSTORE_SUPPORT_H
#define SHMSTORE_SUPPORT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "lookup.h"

static PyObject *CorruptSegmentError, *FormatMismatchError, *ReadStalledError, *StoreFullError,
    *UnknownCursorError;
static PyObject *pure_holder_name, *pure_key_parts, *pure_list_name;

/* The bytes of a caller's key. ``owner`` holds them where the key itself does not. */
struct key_view {
    const void *bytes;
    size_t size;
    uint32_t key_class;
    PyObject *owner;
};

static int
import_names(const char *module_name, size_t count, const char *const names[],
             PyObject **const targets[])
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        *targets[i] = PyObject_GetAttrString(module, names[i]);
        if (*targets[i] == NULL) {
            Py_DECREF(module);
            return -1;
        }
    }
    Py_DECREF(module);
    return 0;
}

static int
support_setup(void)
{
    static const char *const errors[] = {"CorruptSegment", "FormatMismatch", "ReadStalled",
                                         "StoreFull", "UnknownCursor"};
    static PyObject **const classes[] = {&CorruptSegmentError, &FormatMismatchError,
                                         &ReadStalledError, &StoreFullError, &UnknownCursorError};
    static const char *const functions[] = {"holder_name", "key_parts", "list_name"};
    static PyObject **const targets[] = {&pure_holder_name, &pure_key_parts, &pure_list_name};
    if (import_names("shmstore.errors", 5, errors, classes) < 0) {
        return -1;
    }
    return import_names("shmstore.pure.records", 3, functions, targets);
}

/* A key of a rare type, or one that is refused: the reference engine says which. */
static int
odd_key_parts(PyObject *key, struct key_view *view)
{
    PyObject *parts = PyObject_CallOneArg(pure_key_parts, key);
    if (parts == NULL) {
        return -1;
    }
    view->key_class = (uint32_t)PyLong_AsUnsignedLong(PyTuple_GET_ITEM(parts, 0));
    view->owner = PyTuple_GET_ITEM(parts, 1);
    Py_INCREF(view->owner);
    Py_DECREF(parts);
    view->bytes = PyBytes_AS_STRING(view->owner);
    view->size = (size_t)PyBytes_GET_SIZE(view->owner);
    return 0;
}

static inline int
key_parts(PyObject *key, struct key_view *view)
{
    view->owner = NULL;
    if (PyUnicode_CheckExact(key)) {
        Py_ssize_t size;
        if (PyUnicode_IS_COMPACT_ASCII(key)) {
            view->bytes = PyUnicode_DATA(key);
            size = PyUnicode_GET_LENGTH(key);
        }
        else {
            view->bytes = PyUnicode_AsUTF8AndSize(key, &size);
            if (view->bytes == NULL) {
                PyErr_Clear();
                return odd_key_parts(key, view);
            }
        }
        view->size = (size_t)size;
        view->key_class = CLASS_STR;
    }
    else if (PyBytes_CheckExact(key)) {
        view->bytes = PyBytes_AS_STRING(key);
        view->size = (size_t)PyBytes_GET_SIZE(key);
        view->key_class = CLASS_BYTES;
    }
    else {
        return odd_key_parts(key, view);
    }
    return view->size <= KEY_BYTES_MAX ? 0 : odd_key_parts(key, view);
}

static inline void
key_release(struct key_view *view)
{
    Py_XDECREF(view->owner);
}

/* The key as its caller gave it; Damaged is told by NULL without an exception. */
static PyObject *
key_object(uint32_t key_class, const char *bytes, size_t size)
{
    if (key_class != CLASS_STR) {
        return PyBytes_FromStringAndSize(bytes, (Py_ssize_t)size);
    }
    PyObject *key = PyUnicode_DecodeUTF8(bytes, (Py_ssize_t)size, NULL);
    if (key == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
    }
    return key;
}

static bool
name_part(PyObject *text, unsigned char **end)
{
    Py_ssize_t size;
    const char *bytes = PyUnicode_CheckExact(text) ? PyUnicode_AsUTF8AndSize(text, &size) : NULL;
    if (bytes == NULL || size > NAME_BYTES_MAX) {
        PyErr_Clear();
        return false;
    }
    *(*end)++ = (unsigned char)size;
    memcpy(*end, bytes, (size_t)size);
    *end += size;
    return true;
}

/* Return the name of a list as bytes: a table in a namespace, or one value of an index of it.
   ``index`` is bytes, or NULL for the table's own list. */
static PyObject *
list_name_object(PyObject *table, PyObject *namespace, PyObject *index)
{
    unsigned char name[2 * (1 + NAME_BYTES_MAX)], *end = name;
    bool plain = index == NULL || PyBytes_CheckExact(index);
    if (!plain || !name_part(table, &end) || !name_part(namespace, &end)) {
        return PyObject_CallFunctionObjArgs(pure_list_name, table, namespace, index, NULL);
    }
    Py_ssize_t size = end - name, more = index ? PyBytes_GET_SIZE(index) : 0;
    PyObject *result = PyBytes_FromStringAndSize(NULL, size + more);
    if (result != NULL) {
        memcpy(PyBytes_AS_STRING(result), name, (size_t)size);
        if (more) {
            memcpy(PyBytes_AS_STRING(result) + size, PyBytes_AS_STRING(index), (size_t)more);
        }
    }
    return result;
}

#endif
