/* Record and RecordArray: packed records, decoded where they are touched.

   They hold no object of a caller's, only bytes and what was decoded of them: no circle can form,
   so the collector need not know them. What was decoded is kept in dicts and tuples, whose
   deallocation bounds the depth of that of nested records. State changes under the GIL alone. */

#ifndef SHMSTORE_RECORD_TYPE_H
#define SHMSTORE_RECORD_TYPE_H

#include "decoding.h"

/* A map of more bytes is not walked again for each of its keys. */
#define WALKED_BYTES_MAX 512

typedef struct {
    PyObject_HEAD PyObject *data; /* bytes */
    Py_ssize_t start, end;
    PyObject *places; /* a map: dict from key to where its value begins; an array: Py_ssize_ts */
    PyObject *kept;   /* a map: dict from where a value begins to it; an array: tuple */
    PyObject *fields; /* a map: dict of all of it, once that was asked for */
    PyObject *first;  /* of a map the first scalar that was touched, which needs no dict */
    Py_ssize_t first_at;
    bool touched;
} RecordObject;

static PyTypeObject *RecordType, *RecordArrayType;
static PyObject *record_fail, *record_pure, *record_pure_array, *mapping_class, *keys_name,
    *values_name, *items_name, *index_name_text, *count_name;

static inline const unsigned char *
record_bytes(RecordObject *self)
{
    return (const unsigned char *)PyBytes_AS_STRING(self->data);
}

static PyObject *
record_slice(PyObject *data, Py_ssize_t start, Py_ssize_t end)
{
    if (start == 0 && end == PyBytes_GET_SIZE(data)) {
        return Py_NewRef(data);
    }
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + start, end - start);
}

/* Set the error that says why these bytes are no record. */
static void
record_set_error(RecordObject *self)
{
    PyObject *data = record_slice(self->data, self->start, self->end);
    PyObject *result = data ? PyObject_CallOneArg(record_fail, data) : NULL;
    Py_XDECREF(data);
    Py_XDECREF(result); /* none: it raises */
}

static PyObject *
record_new(PyTypeObject *type, PyObject *data, Py_ssize_t start, Py_ssize_t end)
{
    RecordObject *self = PyObject_New(RecordObject, type);
    if (self != NULL) {
        self->data = Py_NewRef(data);
        self->start = start;
        self->end = end;
        self->places = self->kept = self->fields = self->first = NULL;
        self->first_at = 0;
        self->touched = false;
    }
    return (PyObject *)self;
}

static void
record_dealloc(RecordObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(self->data);
    Py_XDECREF(self->places);
    Py_XDECREF(self->kept);
    Py_XDECREF(self->fields);
    Py_XDECREF(self->first);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Decode the value at ``start``; what is inside a container is left to be touched. */
static PyObject *
record_decode(RecordObject *self, Py_ssize_t start)
{
    const unsigned char *at = record_bytes(self) + start, *end = record_bytes(self) + self->end;
    enum packed_kind kind = packed_kind(*at);
    if (kind == PACKED_SCALAR) {
        return packed_value(at, end);
    }
    Py_ssize_t stop = packed_skip(at, end) - record_bytes(self);
    return record_new(kind == PACKED_MAP ? RecordType : RecordArrayType, self->data, start, stop);
}

/* A packed record that is a map or an array as one of these, any other decoded; takes it over. */
static PyObject *
record_from_bytes(PyObject *data)
{
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    unsigned char first = size ? (unsigned char)*PyBytes_AS_STRING(data) : 0;
    enum packed_kind kind = packed_kind(first);
    if (kind == PACKED_SCALAR) {
        return unpacked(data);
    }
    PyTypeObject *type = kind == PACKED_MAP ? RecordType : RecordArrayType;
    PyObject *self = record_new(type, data, 0, size);
    Py_DECREF(data);
    return self;
}

/* What both kinds have in common */

static PyObject *array_places(RecordObject *self);
static PyObject *map_places(RecordObject *self);

static PyObject *
record_copy(RecordObject *self, PyObject *Py_UNUSED(nothing))
{
    return unpacked(record_slice(self->data, self->start, self->end));
}

static PyObject *
record_packed(RecordObject *self, PyObject *Py_UNUSED(nothing))
{
    bool is_map = Py_IS_TYPE(self, RecordType);
    if ((is_map ? map_places(self) : array_places(self)) == NULL) {
        return NULL;
    }
    return record_slice(self->data, self->start, self->end);
}

static PyObject *
record_reduce(RecordObject *self, PyObject *Py_UNUSED(nothing))
{
    PyTypeObject *plain = Py_IS_TYPE(self, RecordType) ? &PyDict_Type : &PyList_Type;
    PyObject *copy = record_copy(self, NULL);
    return copy ? Py_BuildValue("O(N)", plain, copy) : NULL;
}

static PyObject *
record_repr(RecordObject *self)
{
    const char *name = Py_IS_TYPE(self, RecordType) ? "Record" : "RecordArray";
    PyObject *copy = record_copy(self, NULL);
    if (copy == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
            return NULL;
        }
        PyErr_Clear();
        return PyUnicode_FromFormat("<%s of %zd unreadable bytes>", name, self->end - self->start);
    }
    PyObject *text = PyUnicode_FromFormat("%s(%R)", name, copy);
    Py_DECREF(copy);
    return text;
}

static PyObject *
record_refuse(RecordObject *self, PyObject *Py_UNUSED(arguments), PyObject *Py_UNUSED(options))
{
    return PyErr_Format(PyExc_TypeError,
                        "a %s is read-only, and no change of it would reach the store: "
                        "change its .copy() and store that",
                        Py_IS_TYPE(self, RecordType) ? "Record" : "RecordArray");
}

static int
record_refuse_to_set(RecordObject *self, PyObject *Py_UNUSED(what), PyObject *Py_UNUSED(value))
{
    record_refuse(self, NULL, NULL);
    return -1;
}

static PyObject *
record_construct(PyTypeObject *type, PyObject *arguments, PyObject *options)
{
    PyObject *data;
    static char *names[] = {"data", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, options, "O", names, &data)) {
        return NULL;
    }
    enum packed_kind wanted = type == RecordType ? PACKED_MAP : PACKED_ARRAY;
    if (PyBytes_CheckExact(data) && PyBytes_GET_SIZE(data) > 0 &&
        packed_kind((unsigned char)*PyBytes_AS_STRING(data)) == wanted) {
        return record_new(type, data, 0, PyBytes_GET_SIZE(data));
    }
    return PyObject_CallOneArg(type == RecordType ? record_pure : record_pure_array, data);
}

/* Maps */

/* Keep ``value``, which is taken over, unless another thread was faster; return what is kept. */
static PyObject *
map_keep(RecordObject *self, Py_ssize_t place, PyObject *value)
{
    if (self->kept == NULL) {
        self->kept = PyDict_New();
    }
    PyObject *number = self->kept ? PyLong_FromSsize_t(place) : NULL;
    PyObject *kept = number ? PyDict_SetDefault(self->kept, number, value) : NULL;
    Py_XINCREF(kept);
    Py_XDECREF(number);
    Py_DECREF(value);
    return kept;
}

/* Return the value at ``place``: the one that is kept or a new one, which is then kept if ``keep``.
 */
static PyObject *
map_value(RecordObject *self, Py_ssize_t place, bool keep)
{
    if (self->first_at == place) {
        return Py_NewRef(self->first);
    }
    if (self->kept != NULL) {
        PyObject *number = PyLong_FromSsize_t(place);
        PyObject *kept = number ? PyDict_GetItemWithError(self->kept, number) : NULL;
        Py_XDECREF(number);
        if (kept != NULL || PyErr_Occurred()) {
            return Py_XNewRef(kept);
        }
    }
    PyObject *value = record_decode(self, place);
    if (value == NULL || !keep) {
        return value;
    }
    if (self->first_at == 0 && packed_kind(record_bytes(self)[place]) == PACKED_SCALAR) {
        self->first_at = place;
        self->first = Py_NewRef(value);
        return value;
    }
    return map_keep(self, place, value);
}

/* Let equal keys of all records be one object; CPython 3.12 would never let go of it. */
static inline void
share_key(PyObject **key)
{
#if PY_VERSION_HEX < 0x030C0000 || PY_VERSION_HEX >= 0x030D0000
    if (PyUnicode_CheckExact(*key)) {
        PyUnicode_InternInPlace(key);
    }
#else
    (void)key;
#endif
}

/* Return a dict of where the value of each key lies or, if ``whole``, of the values. */
static PyObject *
map_walk(RecordObject *self, bool whole)
{
    uint64_t count;
    const unsigned char *base = record_bytes(self), *end = base + self->end;
    const unsigned char *at = packed_open(base + self->start, end, &count);
    PyObject *places = PyDict_New();
    for (; places != NULL && at != NULL && count > 0; count -= 2) {
        const unsigned char *value = packed_skip(at, end);
        if (value == NULL || packed_kind(*at) != PACKED_SCALAR) {
            at = NULL;
            break;
        }
        PyObject *key = packed_value(at, end), *entry = NULL;
        if (key != NULL) {
            share_key(&key);
            entry = whole ? map_value(self, value - base, false) : PyLong_FromSsize_t(value - base);
        }
        if (entry == NULL || PyDict_SetItem(places, key, entry) < 0) {
            Py_CLEAR(places);
        }
        Py_XDECREF(key);
        Py_XDECREF(entry);
        at = packed_skip(value, end);
    }
    if (places != NULL && at != end) {
        record_set_error(self);
        Py_CLEAR(places);
    }
    return places;
}

/* Return the places of the values of a map, borrowed. */
static PyObject *
map_places(RecordObject *self)
{
    if (self->places == NULL) {
        PyObject *places = map_walk(self, false);
        if (places == NULL || self->places != NULL) {
            Py_XDECREF(places); /* another thread was faster */
            return places ? self->places : NULL;
        }
        self->places = places;
    }
    return self->places;
}

/* Find where the value of a key begins: 1 and the place, 0 if there is none, -1 for an error. */
static int
map_find(RecordObject *self, PyObject *key, Py_ssize_t *place)
{
    bool walk = !self->touched || self->end - self->start <= WALKED_BYTES_MAX;
    self->touched = true;
    if (self->places == NULL && walk && PyUnicode_CheckExact(key)) {
        Py_ssize_t size;
        const char *text = PyUnicode_AsUTF8AndSize(key, &size);
        const unsigned char *base = record_bytes(self), *at;
        if (text == NULL) {
            PyErr_Clear();
        }
        else {
            switch (packed_find(base + self->start, base + self->end, text, (size_t)size, &at)) {
            case FIELD_FOUND:
                *place = at - base;
                return 1;
            case FIELD_ABSENT:
                return 0;
            default:
                break;
            }
        }
    }
    PyObject *places = map_places(self);
    PyObject *number = places ? PyDict_GetItemWithError(places, key) : NULL;
    if (number == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    *place = PyLong_AsSsize_t(number);
    return 1;
}

/* Look up the value of a key: 1, 0 if there is none, -1 for an error. */
static int
map_look_up(RecordObject *self, PyObject *key, PyObject **value)
{
    Py_ssize_t place;
    if (self->fields != NULL) {
        *value = Py_XNewRef(PyDict_GetItemWithError(self->fields, key));
        return *value ? 1 : PyErr_Occurred() ? -1 : 0;
    }
    int found = map_find(self, key, &place);
    if (found > 0) {
        *value = map_value(self, place, true);
        return *value ? 1 : -1;
    }
    return found;
}

static PyObject *
map_subscript(RecordObject *self, PyObject *key)
{
    PyObject *value;
    int found = map_look_up(self, key, &value);
    if (found > 0) {
        return value;
    }
    PyObject *arguments = found == 0 ? PyTuple_Pack(1, key) : NULL;
    if (arguments != NULL) {
        PyErr_SetObject(PyExc_KeyError, arguments);
        Py_DECREF(arguments);
    }
    return NULL;
}

static PyObject *
map_get(RecordObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count < 1 || count > 2) {
        return PyErr_Format(PyExc_TypeError, "get() takes 1 or 2 arguments, not %zd", count);
    }
    PyObject *value;
    int found = map_look_up(self, arguments[0], &value);
    if (found == 0) {
        return Py_NewRef(count > 1 ? arguments[1] : Py_None);
    }
    return found > 0 ? value : NULL;
}

static int
map_contains(RecordObject *self, PyObject *key)
{
    Py_ssize_t place;
    return map_find(self, key, &place);
}

static Py_ssize_t
map_length(RecordObject *self)
{
    PyObject *places = map_places(self);
    return places ? PyDict_GET_SIZE(places) : -1;
}

static PyObject *
map_iterator(RecordObject *self)
{
    PyObject *places = map_places(self);
    return places ? PyObject_GetIter(places) : NULL;
}

static PyObject *
map_fields_by_place(RecordObject *self)
{
    PyObject *places = map_places(self), *key, *place;
    PyObject *fields = places ? PyDict_New() : NULL;
    for (Py_ssize_t i = 0; fields != NULL && PyDict_Next(places, &i, &key, &place);) {
        PyObject *value = map_value(self, PyLong_AsSsize_t(place), false);
        if (value == NULL || PyDict_SetItem(fields, key, value) < 0) {
            Py_CLEAR(fields);
        }
        Py_XDECREF(value);
    }
    return fields;
}

/* Return a dict of all fields in their order, borrowed; containers are left to be touched. */
static PyObject *
map_fields(RecordObject *self)
{
    if (self->fields == NULL) {
        PyObject *fields = self->places ? NULL : map_walk(self, true);
        if (fields == NULL) {
            if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception)) {
                return NULL;
            }
            PyErr_Clear(); /* it may have been a value that another one of its key replaces */
            fields = map_fields_by_place(self);
        }
        if (self->fields == NULL) {
            self->fields = fields;
        }
        else {
            Py_XDECREF(fields); /* another thread was faster */
        }
    }
    return self->fields;
}

static PyObject *
map_keys(RecordObject *self, PyObject *Py_UNUSED(nothing))
{
    PyObject *places = map_places(self);
    return places ? PyObject_CallMethodNoArgs(places, keys_name) : NULL;
}

static PyObject *
map_view(RecordObject *self, PyObject *method)
{
    PyObject *fields = map_fields(self);
    return fields ? PyObject_CallMethodNoArgs(fields, method) : NULL;
}

static PyObject *
map_values(RecordObject *self, PyObject *Py_UNUSED(nothing))
{
    return map_view(self, values_name);
}

static PyObject *
map_items(RecordObject *self, PyObject *Py_UNUSED(nothing))
{
    return map_view(self, items_name);
}

static Py_hash_t
map_hash(RecordObject *self)
{
    Py_hash_t hash = -1;
    if (Py_EnterRecursiveCall(" while hashing a Record")) {
        return -1;
    }
    PyObject *items = map_view(self, items_name);
    PyObject *set = items ? PyFrozenSet_New(items) : NULL;
    if (set != NULL) {
        hash = PyObject_Hash(set);
    }
    Py_LeaveRecursiveCall();
    Py_XDECREF(items);
    Py_XDECREF(set);
    return hash;
}

/* Return a mapping of any kind as a dict, which may be changed if ``fresh``; NULL without an
   exception for what is none. */
static PyObject *
plain_map(PyObject *other, bool fresh)
{
    if (Py_IS_TYPE(other, RecordType)) {
        return record_copy((RecordObject *)other, NULL);
    }
    if (PyDict_Check(other) && !fresh) {
        return Py_NewRef(other);
    }
    int is_mapping = PyDict_Check(other) ? 1 : PyObject_IsInstance(other, mapping_class);
    return is_mapping > 0 ? PyObject_CallOneArg((PyObject *)&PyDict_Type, other) : NULL;
}

static PyObject *
compared(RecordObject *self, PyObject *plain, int operation)
{
    if (plain == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_NotImplemented);
    }
    PyObject *copy = record_copy(self, NULL);
    PyObject *result = copy ? PyObject_RichCompare(copy, plain, operation) : NULL;
    Py_XDECREF(copy);
    Py_DECREF(plain);
    return result;
}

static PyObject *
map_compare(RecordObject *self, PyObject *other, int operation)
{
    bool comparable = operation == Py_EQ || operation == Py_NE;
    return compared(self, comparable ? plain_map(other, false) : NULL, operation);
}

static PyObject *
map_or(PyObject *left, PyObject *right)
{
    PyObject *merged = plain_map(left, true);
    PyObject *others = merged ? plain_map(right, false) : NULL;
    if (others == NULL) {
        Py_XDECREF(merged);
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_NotImplemented);
    }
    if (PyDict_Update(merged, others) < 0) {
        Py_CLEAR(merged);
    }
    Py_DECREF(others);
    return merged;
}

/* Arrays */

/* Note where each value lies. */
static PyObject *
array_places(RecordObject *self)
{
    if (self->places != NULL) {
        return self->places;
    }
    uint64_t count;
    const unsigned char *base = record_bytes(self), *end = base + self->end;
    const unsigned char *at = packed_open(base + self->start, end, &count);
    if (at == NULL) {
        record_set_error(self);
        return NULL;
    }
    Py_ssize_t size = (Py_ssize_t)count * (Py_ssize_t)sizeof(Py_ssize_t);
    PyObject *places = PyBytes_FromStringAndSize(NULL, size);
    PyObject *kept = places ? PyTuple_New((Py_ssize_t)count) : NULL;
    if (kept == NULL) {
        Py_XDECREF(places);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < (Py_ssize_t)count; i++) {
        /* Stands for what was not decoded yet: nothing that is packed is decoded to it. */
        PyTuple_SET_ITEM(kept, i, Py_NewRef(Py_Ellipsis));
        Py_ssize_t place = at - base;
        memcpy(PyBytes_AS_STRING(places) + i * (Py_ssize_t)sizeof place, &place, sizeof place);
        at = at ? packed_skip(at, end) : NULL;
    }
    if (at != end) {
        Py_DECREF(places);
        Py_DECREF(kept);
        record_set_error(self);
        return NULL;
    }
    if (self->places != NULL) { /* another thread was faster */
        Py_DECREF(places);
        Py_DECREF(kept);
        return self->places;
    }
    self->kept = kept;
    return self->places = places;
}

static Py_ssize_t
array_length(RecordObject *self)
{
    return array_places(self) ? PyTuple_GET_SIZE(self->kept) : -1;
}

static PyObject *
array_item(RecordObject *self, Py_ssize_t index)
{
    PyObject *places = array_places(self);
    if (places == NULL) {
        return NULL;
    }
    if (index < 0 || index >= PyTuple_GET_SIZE(self->kept)) {
        PyErr_SetString(PyExc_IndexError, "array index out of range");
        return NULL;
    }
    PyObject *value = PyTuple_GET_ITEM(self->kept, index);
    if (value != Py_Ellipsis) {
        return Py_NewRef(value);
    }
    Py_ssize_t place;
    memcpy(&place, PyBytes_AS_STRING(places) + index * (Py_ssize_t)sizeof place, sizeof place);
    value = record_decode(self, place);
    if (value != NULL && PyTuple_GET_ITEM(self->kept, index) == Py_Ellipsis) {
        PyTuple_SET_ITEM(self->kept, index, Py_NewRef(value));
        Py_DECREF(Py_Ellipsis);
    }
    return value;
}

static PyObject *
array_slice(RecordObject *self, PyObject *slice)
{
    Py_ssize_t start, stop, step, length = array_length(self);
    if (length < 0 || PySlice_Unpack(slice, &start, &stop, &step) < 0) {
        return NULL;
    }
    Py_ssize_t count = PySlice_AdjustIndices(length, &start, &stop, step);
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *value = array_item(self, start + i * step);
        if (value == NULL || PyList_Append(list, value) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(value);
    }
    return list;
}

static PyObject *
array_subscript(RecordObject *self, PyObject *index)
{
    if (PySlice_Check(index)) {
        return array_slice(self, index);
    }
    if (!PyIndex_Check(index)) {
        return PyErr_Format(PyExc_TypeError, "array indices are integers or slices, not %.200s",
                            Py_TYPE(index)->tp_name);
    }
    Py_ssize_t number = PyNumber_AsSsize_t(index, PyExc_IndexError), length = array_length(self);
    if (length < 0 || (number == -1 && PyErr_Occurred())) {
        return NULL;
    }
    return array_item(self, number < 0 ? number + length : number);
}

static Py_hash_t
array_hash(RecordObject *self)
{
    Py_hash_t hash = -1;
    if (Py_EnterRecursiveCall(" while hashing a RecordArray")) {
        return -1;
    }
    PyObject *all = PySequence_Tuple((PyObject *)self);
    if (all != NULL) {
        hash = PyObject_Hash(all);
        Py_DECREF(all);
    }
    Py_LeaveRecursiveCall();
    return hash;
}

static PyObject *
array_compare(RecordObject *self, PyObject *other, int operation)
{
    PyObject *plain = NULL;
    if (operation == Py_EQ || operation == Py_NE) {
        if (Py_IS_TYPE(other, RecordArrayType)) {
            plain = record_copy((RecordObject *)other, NULL);
        }
        else if (PyList_Check(other)) {
            plain = Py_NewRef(other);
        }
    }
    return compared(self, plain, operation);
}

static PyObject *
array_call_list(RecordObject *self, PyObject *name, PyObject *arguments)
{
    PyObject *list = PySequence_List((PyObject *)self);
    PyObject *method = list ? PyObject_GetAttr(list, name) : NULL;
    PyObject *result = method ? PyObject_CallObject(method, arguments) : NULL;
    Py_XDECREF(list);
    Py_XDECREF(method);
    return result;
}

static PyObject *
array_index(RecordObject *self, PyObject *arguments)
{
    return array_call_list(self, index_name_text, arguments);
}

static PyObject *
array_count(RecordObject *self, PyObject *arguments)
{
    return array_call_list(self, count_name, arguments);
}

/* The types */

#define ANY(function) (PyCFunction)(void (*)(void))(function)
#define REFUSED(name) {name, ANY(record_refuse), METH_VARARGS | METH_KEYWORDS, NULL}
#define COMMON_METHODS                                                                             \
    {"copy", ANY(record_copy), METH_NOARGS, "Return it all as plain objects."},                    \
        {"packed", ANY(record_packed), METH_NOARGS, "Return the msgpack bytes."},                  \
        {"__reduce__", ANY(record_reduce), METH_NOARGS, NULL}, REFUSED("clear"), REFUSED("pop")

static PyMethodDef map_methods[] = {
    COMMON_METHODS,
    {"get", ANY(map_get), METH_FASTCALL, "Return the value of a key, or a default."},
    {"keys", ANY(map_keys), METH_NOARGS, "Return a view of the keys. Decodes no value."},
    {"values", ANY(map_values), METH_NOARGS, "Return a view of the values."},
    {"items", ANY(map_items), METH_NOARGS, "Return a view of the fields."},
    REFUSED("popitem"),
    REFUSED("setdefault"),
    REFUSED("update"),
    {NULL, NULL, 0, NULL},
};

static PyMethodDef array_methods[] = {
    COMMON_METHODS,
    {"index", ANY(array_index), METH_VARARGS, "Return the first index of a value."},
    {"count", ANY(array_count), METH_VARARGS, "Return how often a value is there."},
    REFUSED("append"),
    REFUSED("extend"),
    REFUSED("insert"),
    REFUSED("remove"),
    REFUSED("reverse"),
    REFUSED("sort"),
    {NULL, NULL, 0, NULL},
};

#define COMMON_SLOTS                                                                               \
    {Py_tp_new, record_construct}, {Py_tp_dealloc, record_dealloc}, {Py_tp_repr, record_repr},     \
        {Py_tp_setattro, record_refuse_to_set},                                                    \
    {                                                                                              \
        Py_mp_ass_subscript, record_refuse_to_set                                                  \
    }

static PyType_Slot map_slots[] = {
    COMMON_SLOTS,
    {Py_tp_doc, "A mapping from a table: read-only, and decoded where it is touched."},
    {Py_tp_methods, map_methods},
    {Py_tp_hash, map_hash},
    {Py_tp_richcompare, map_compare},
    {Py_tp_iter, map_iterator},
    {Py_mp_subscript, map_subscript},
    {Py_mp_length, map_length},
    {Py_sq_contains, map_contains},
    {Py_nb_or, map_or},
    {0, NULL},
};

static PyType_Slot array_slots[] = {
    COMMON_SLOTS,
    {Py_tp_doc, "An array of a record: read-only, and decoded where it is touched."},
    {Py_tp_methods, array_methods},
    {Py_tp_hash, array_hash},
    {Py_tp_richcompare, array_compare},
    {Py_tp_iter, PySeqIter_New},
    {Py_mp_subscript, array_subscript},
    {Py_mp_length, array_length},
    {Py_sq_length, array_length},
    {Py_sq_item, array_item},
    {0, NULL},
};

static PyType_Spec map_spec = {"shmstore._native.Record", sizeof(RecordObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_MAPPING,
                               map_slots};
static PyType_Spec array_spec = {
    "shmstore._native.RecordArray", sizeof(RecordObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_SEQUENCE, array_slots};

static PyObject *
module_record_of(PyObject *Py_UNUSED(module), PyObject *data)
{
    if (!PyBytes_CheckExact(data)) {
        return PyErr_Format(PyExc_TypeError, "a record is made from bytes, not from %.200s",
                            Py_TYPE(data)->tp_name);
    }
    return record_from_bytes(Py_NewRef(data));
}

static PyObject *
module_field_of(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count < 2 || count > 3 || !PyBytes_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "field_of() takes bytes, a field and a default");
        return NULL;
    }
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(arguments[0]);
    return decode_field(data, (size_t)PyBytes_GET_SIZE(arguments[0]), arguments[1],
                        count > 2 ? arguments[2] : Py_None);
}

static PyMethodDef record_functions[] = {
    {"record_of", module_record_of, METH_O, "Return a packed record, to be decoded by touch."},
    {"field_of", ANY(module_field_of), METH_FASTCALL, "Decode one field of a packed mapping."},
    {NULL, NULL, 0, NULL},
};

static int
record_names(void)
{
    static const char *const helpers[] = {"refuse", "Record", "RecordArray"};
    static PyObject **const targets[] = {&record_fail, &record_pure, &record_pure_array};
    if (import_names("shmstore.pure.record", 3, helpers, targets) < 0) {
        return -1;
    }
    keys_name = PyUnicode_InternFromString("keys");
    values_name = PyUnicode_InternFromString("values");
    items_name = PyUnicode_InternFromString("items");
    index_name_text = PyUnicode_InternFromString("index");
    count_name = PyUnicode_InternFromString("count");
    return keys_name && values_name && items_name && index_name_text && count_name ? 0 : -1;
}

static int
record_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type, PyObject *kind)
{
    *type = (PyTypeObject *)PyType_FromSpec(spec);
    if (*type == NULL || PyModule_AddType(module, *type) < 0) {
        return -1;
    }
    PyObject *result = PyObject_CallMethod(kind, "register", "O", *type);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* Add both types and their functions to the module; make the codec take their objects. */
static int
record_setup(PyObject *module)
{
    static const char *const kinds[] = {"Mapping", "Sequence"}, *const accept[] = {"accept_packed"};
    PyObject *sequence_class = NULL, *accept_packed = NULL, *result = NULL;
    PyObject **const classes[] = {&mapping_class, &sequence_class};
    PyObject **const functions[] = {&accept_packed};
    if (decoding_setup() == 0 && record_names() == 0 &&
        import_names("collections.abc", 2, kinds, classes) == 0 &&
        import_names("shmstore.codec", 1, accept, functions) == 0 &&
        record_add_type(module, &map_spec, &RecordType, mapping_class) == 0 &&
        record_add_type(module, &array_spec, &RecordArrayType, sequence_class) == 0 &&
        PyModule_AddFunctions(module, record_functions) == 0) {
        result = PyObject_CallFunctionObjArgs(accept_packed, RecordType, RecordArrayType, NULL);
    }
    Py_XDECREF(sequence_class);
    Py_XDECREF(accept_packed);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

#endif
