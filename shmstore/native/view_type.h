/* View: the lookups by key of one (table, namespace), the shortest way from Python to a record.

   The base of a table. It is attached at first use by ``_attach()``, and turns to ``_ask()`` where
   the writer overtook every try or the reader was closed; both are its subclass's. */

#ifndef SHMSTORE_VIEW_TYPE_H
#define SHMSTORE_VIEW_TYPE_H

#include "reader_type.h"
#include "record_type.h"

typedef struct {
    PyObject_HEAD ReaderObject *reader; /* NULL until it is attached */
    uint64_t scope;
} ViewObject;

static PyTypeObject *ViewType;

static PyObject *codec_unpack, *decode_function, *decode_names, *attach_name, *ask_name,
    *missing_name, *get_text, *version_text;
static PyObject *decode_values[8];

/* The codec decodes with msgpack's function and keywords; called at once, without its frame. */
static int
view_setup(void)
{
    static const char *const names[] = {"unpack", "decode"};
    PyObject *decode = NULL, *keywords = NULL;
    PyObject **const targets[] = {&codec_unpack, &decode};
    if (import_names("shmstore.codec", 2, names, targets) < 0) {
        return -1;
    }
    decode_function = PyObject_GetAttrString(decode, "func");
    keywords = PyObject_GetAttrString(decode, "keywords");
    Py_DECREF(decode);
    decode_names = keywords ? PySequence_Tuple(keywords) : NULL;
    if (decode_function == NULL || decode_names == NULL || PyTuple_GET_SIZE(decode_names) > 7) {
        Py_XDECREF(keywords);
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(decode_names); i++) {
        PyObject *value = PyDict_GetItem(keywords, PyTuple_GET_ITEM(decode_names, i));
        Py_XINCREF(value);
        decode_values[i] = value;
    }
    Py_DECREF(keywords);
    attach_name = PyUnicode_InternFromString("_attach");
    ask_name = PyUnicode_InternFromString("_ask");
    missing_name = PyUnicode_InternFromString("_missing");
    get_text = PyUnicode_InternFromString("get");
    version_text = PyUnicode_InternFromString("version");
    return attach_name && ask_name && missing_name && get_text && version_text ? 0 : -1;
}

/* Return the record that these bytes hold; takes them over. */
static PyObject *
decoded(PyObject *data)
{
    PyObject *arguments[10];
    Py_ssize_t count = PyTuple_GET_SIZE(decode_names);
    arguments[1] = data;
    for (Py_ssize_t i = 0; i < count; i++) {
        arguments[2 + i] = decode_values[i];
    }
    PyObject *record = PyObject_Vectorcall(decode_function, arguments + 1,
                                           1 | PY_VECTORCALL_ARGUMENTS_OFFSET, decode_names);
    if (record == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear(); /* the codec gives the error its name */
        record = PyObject_CallOneArg(codec_unpack, data);
    }
    Py_DECREF(data);
    return record;
}

static int
view_attach(ViewObject *self)
{
    PyObject *pair = PyObject_CallMethodNoArgs((PyObject *)self, attach_name);
    if (pair == NULL) {
        return -1;
    }
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2 ||
        !Py_IS_TYPE(PyTuple_GET_ITEM(pair, 0), ReaderType)) {
        PyErr_SetString(PyExc_TypeError, "_attach() returns (reader, scope) of this engine");
    }
    else if (self->reader == NULL && scope_of(PyTuple_GET_ITEM(pair, 1), &self->scope) == 0) {
        /* Once for all: another thread may be reading with it while this one waited. */
        self->reader = (ReaderObject *)Py_NewRef(PyTuple_GET_ITEM(pair, 0));
    }
    Py_DECREF(pair);
    return PyErr_Occurred() ? -1 : 0;
}

/* Ask the writer, where that is the reason why there is no answer. */
static PyObject *
view_ask(ViewObject *self, PyObject *method, PyObject *key)
{
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(ReadStalledError)) {
        return NULL;
    }
    PyErr_Clear();
    return PyObject_CallMethodObjArgs((PyObject *)self, ask_name, method, key, NULL);
}

/* Return the bytes of a record; NULL without an exception if there is none. */
static inline PyObject *
view_bytes(ViewObject *self, PyObject *key)
{
    if (self->reader == NULL && view_attach(self) < 0) {
        return NULL;
    }
    struct key_view view;
    uint64_t version;
    PyObject *value = NULL;
    if (key_parts(key, &view) < 0) {
        return NULL;
    }
    bool open = !self->reader->closed; /* after a key of a rare type has run other code */
    if (open) {
        value = reader_value(self->reader, self->scope, &view, &version);
    }
    key_release(&view);
    if (value == NULL && (!open || self->reader->closed || PyErr_Occurred())) {
        if (self->reader->closed) {
            PyErr_Clear();
        }
        value = view_ask(self, get_text, key);
        if (value == Py_None) {
            Py_CLEAR(value);
        }
    }
    return value;
}

static int
lookup_call(const char *method, PyObject *const *arguments, Py_ssize_t count, PyObject *names,
            PyObject **fallback)
{
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    *fallback = count > 1 ? arguments[1] : Py_None;
    if (named == 1 && count == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "default") == 0) {
        *fallback = arguments[1];
    }
    else if (named || count < 1 || count > 2) {
        PyErr_Format(PyExc_TypeError, "%s() takes a key and perhaps a default", method);
        return -1;
    }
    return 0;
}

static inline PyObject *
value_or(PyObject *value, PyObject *fallback)
{
    if (value == NULL && !PyErr_Occurred()) {
        Py_INCREF(fallback);
        return fallback;
    }
    return value;
}

static PyObject *
view_get_bytes(ViewObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *fallback;
    if (lookup_call("get_bytes", arguments, count, names, &fallback) < 0) {
        return NULL;
    }
    return value_or(view_bytes(self, arguments[0]), fallback);
}

static PyObject *
view_get(ViewObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *fallback;
    if (lookup_call("get", arguments, count, names, &fallback) < 0) {
        return NULL;
    }
    PyObject *data = view_bytes(self, arguments[0]);
    return data ? decoded(data) : value_or(NULL, fallback);
}

static PyObject *
view_record(ViewObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *fallback;
    if (lookup_call("record", arguments, count, names, &fallback) < 0) {
        return NULL;
    }
    PyObject *data = view_bytes(self, arguments[0]);
    return data ? record_from_bytes(data) : value_or(NULL, fallback);
}

static PyObject *
view_get_field(ViewObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"key", "field", "default", NULL};
    PyObject *key, *field, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO|O:get_field", names, &key, &field,
                                     &fallback)) {
        return NULL;
    }
    PyObject *data = view_bytes(self, key);
    if (data == NULL) {
        return value_or(NULL, fallback);
    }
    PyObject *value = decode_field((const unsigned char *)PyBytes_AS_STRING(data),
                                   (size_t)PyBytes_GET_SIZE(data), field, fallback);
    Py_DECREF(data);
    return value;
}

static PyObject *
view_subscript(ViewObject *self, PyObject *key)
{
    PyObject *data = view_bytes(self, key);
    if (data != NULL) {
        return decoded(data);
    }
    if (!PyErr_Occurred()) {
        PyObject *error = PyObject_CallMethodOneArg((PyObject *)self, missing_name, key);
        if (error != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_DECREF(error);
        }
    }
    return NULL;
}

/* Find the version of a record, 0 if there is none; -1 with an exception. */
static int
view_find_version(ViewObject *self, PyObject *key, uint64_t *version)
{
    struct key_view view;
    if (self->reader == NULL && view_attach(self) < 0) {
        return -1;
    }
    if (key_parts(key, &view) < 0) {
        return -1;
    }
    int outcome = -1;
    if (!self->reader->closed) {
        outcome = reader_version(self->reader, self->scope, &view, version);
    }
    key_release(&view);
    if (outcome >= 0) {
        return 0;
    }
    PyObject *answer = view_ask(self, version_text, key);
    if (answer == NULL) {
        return -1;
    }
    *version = answer == Py_None ? 0 : PyLong_AsUnsignedLongLong(answer);
    Py_DECREF(answer);
    return PyErr_Occurred() ? -1 : 0;
}

static int
view_contains(ViewObject *self, PyObject *key)
{
    uint64_t version;
    return view_find_version(self, key, &version) < 0 ? -1 : version != 0;
}

static PyObject *
view_version(ViewObject *self, PyObject *key)
{
    uint64_t version;
    return view_find_version(self, key, &version) < 0 ? NULL : PyLong_FromUnsignedLongLong(version);
}

static void
view_dealloc(ViewObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(self->reader);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef view_methods[] = {
    {"get_bytes", (PyCFunction)(void (*)(void))view_get_bytes, METH_FASTCALL | METH_KEYWORDS,
     "get_bytes($self, key, default=None)\n--\n\n"
     "Return the record as the msgpack bytes that are stored, or default.\n\n"
     "One lookup in memory. Raises InvalidKey."},
    {"get", (PyCFunction)(void (*)(void))view_get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, key, default=None)\n--\n\n"
     "Return the record of key, or default.\n\n"
     "One lookup in memory and decoding. Raises InvalidKey."},
    {"record", (PyCFunction)(void (*)(void))view_record, METH_FASTCALL | METH_KEYWORDS,
     "record($self, key, default=None)\n--\n\n"
     "Return the record of key as a Record, or default.\n\n"
     "One lookup in memory; a field is decoded when it is touched. A record that is an array\n"
     "comes as a RecordArray, a scalar as it is. Raises InvalidKey."},
    {"get_field", (PyCFunction)(void (*)(void))view_get_field, METH_VARARGS | METH_KEYWORDS,
     "get_field($self, key, field, default=None)\n--\n\n"
     "Return one field of a record, or default if the record or the field is missing.\n\n"
     "Only that field is decoded. Raises InvalidRecord if the record is not a map."},
    {"version", (PyCFunction)view_version, METH_O,
     "version($self, key, /)\n--\n\n"
     "Return the version of the record of key; 0 if there is none.\n\n"
     "Each mutation of a record gives it a higher one. Meant for compare_and_swap()."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot view_slots[] = {
    {Py_tp_dealloc, view_dealloc},
    {Py_tp_methods, view_methods},
    {Py_mp_subscript, view_subscript},
    {Py_sq_contains, view_contains},
    {Py_tp_doc, "The lookups by key of one (table, namespace)."},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "shmstore._native.View",
    .basicsize = sizeof(ViewObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = view_slots,
};

#endif
