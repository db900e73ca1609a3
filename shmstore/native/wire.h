/* Short cuts of codec.py and protocol.py: msgpack of what is plain, frames, answers of success.

   Each gives what the Python code would give, or says that this is not for it: what is rare, large
   or wrong is left to that code, and so are all errors. No other Python code runs in between. */

#ifndef SHMSTORE_WIRE_H
#define SHMSTORE_WIRE_H

#include "support.h"

#define WIRE_DEPTH_MAX 64
#define WIRE_HEAD_BYTES 4 /* of a frame: the length of its message */
#define WIRE_FIRST_BYTES 1024
#define WIRE_BYTES_MAX ((size_t)1 << 24) /* what is larger takes its time in any case */
#define WIRE_FRAME_BYTES_MAX ((size_t)VALUE_BYTES_MAX)
#define WIRE_LAST_BYTES_MAX ((Py_ssize_t)1 << 18) /* protocol.py copies what is larger once */

static PyObject *codec_pack, *codec_packed, *packed_data;

/* What is packed so far: in ``first``, until it needs more room. */
struct wire {
    unsigned char *bytes;
    size_t used, room, bytes_max;
    bool tree; /* no tuples, and no container that anything but the one around it refers to */
    unsigned char first[WIRE_FIRST_BYTES];
};

static void
wire_begin(struct wire *wire)
{
    wire->bytes = wire->first;
    wire->used = 0;
    wire->room = WIRE_FIRST_BYTES;
    wire->bytes_max = WIRE_BYTES_MAX;
    wire->tree = false;
}

static void
wire_end(struct wire *wire)
{
    if (wire->bytes != wire->first) {
        PyMem_Free(wire->bytes);
    }
}

static bool
wire_grow(struct wire *wire, size_t size)
{
    if (wire->used > wire->bytes_max || size > wire->bytes_max - wire->used) {
        return false;
    }
    size_t room = 2 * (wire->used + size);
    bool first = wire->bytes == wire->first;
    unsigned char *bytes = PyMem_Realloc(first ? NULL : wire->bytes, room);
    if (bytes == NULL) {
        return false;
    }
    if (first) {
        memcpy(bytes, wire->first, wire->used);
    }
    wire->bytes = bytes;
    wire->room = room;
    return true;
}

/* Return where ``size`` more bytes go; NULL if that is too much. */
static inline unsigned char *
wire_more(struct wire *wire, size_t size)
{
    if (size > wire->room - wire->used && !wire_grow(wire, size)) {
        return NULL;
    }
    unsigned char *place = wire->bytes + wire->used;
    wire->used += size;
    return place;
}

static inline void
wire_big_endian(unsigned char *place, uint64_t number, size_t size)
{
    for (size_t i = size; i > 0; i--) {
        place[i - 1] = (unsigned char)number;
        number >>= 8;
    }
}

/* A byte of kind, and a number in the ``size`` bytes behind it. */
static inline bool
wire_number(struct wire *wire, unsigned char kind, uint64_t number, size_t size)
{
    unsigned char *place = wire_more(wire, 1 + size);
    if (place == NULL) {
        return false;
    }
    place[0] = kind;
    wire_big_endian(place + 1, number, size);
    return true;
}

static inline bool
wire_byte(struct wire *wire, unsigned char byte)
{
    return wire_number(wire, byte, 0, 0);
}

static bool
wire_unsigned(struct wire *wire, uint64_t number)
{
    if (number < 0x80) {
        return wire_byte(wire, (unsigned char)number);
    }
    if (number <= UINT8_MAX) {
        return wire_number(wire, 0xcc, number, 1);
    }
    if (number <= UINT16_MAX) {
        return wire_number(wire, 0xcd, number, 2);
    }
    return number <= UINT32_MAX ? wire_number(wire, 0xce, number, 4)
                                : wire_number(wire, 0xcf, number, 8);
}

static bool
wire_signed(struct wire *wire, int64_t number)
{
    if (number >= 0) {
        return wire_unsigned(wire, (uint64_t)number);
    }
    if (number >= -32) {
        return wire_byte(wire, (unsigned char)number);
    }
    if (number >= INT8_MIN) {
        return wire_number(wire, 0xd0, (uint64_t)number, 1);
    }
    if (number >= INT16_MIN) {
        return wire_number(wire, 0xd1, (uint64_t)number, 2);
    }
    return number >= INT32_MIN ? wire_number(wire, 0xd2, (uint64_t)number, 4)
                               : wire_number(wire, 0xd3, (uint64_t)number, 8);
}

static bool
wire_int(struct wire *wire, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow == 0) {
        return wire_signed(wire, number);
    }
    unsigned long long large = overflow > 0 ? PyLong_AsUnsignedLongLong(value) : 0;
    if (overflow < 0 || PyErr_Occurred()) {
        PyErr_Clear();
        return false;
    }
    return wire_unsigned(wire, large);
}

static bool
wire_float(struct wire *wire, PyObject *value)
{
    double number = PyFloat_AS_DOUBLE(value);
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return wire_number(wire, 0xcb, bits, 8);
}

/* The length in as few bytes as hold it, after the kind of these: of one (if there is such a
   kind), two or four. */
static bool
wire_length(struct wire *wire, size_t length, unsigned char in_one, unsigned char in_two)
{
    if (in_one != 0 && length <= UINT8_MAX) {
        return wire_number(wire, in_one, length, 1);
    }
    if (length <= UINT16_MAX) {
        return wire_number(wire, in_two, length, 2);
    }
    return length <= UINT32_MAX && wire_number(wire, (unsigned char)(in_two + 1), length, 4);
}

static bool
wire_copy(struct wire *wire, const void *bytes, size_t size)
{
    unsigned char *place = wire_more(wire, size);
    if (place == NULL) {
        return false;
    }
    memcpy(place, bytes, size);
    return true;
}

static bool
wire_text(struct wire *wire, PyObject *text)
{
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &size);
    if (bytes == NULL) { /* surrogates, which are no text */
        PyErr_Clear();
        return false;
    }
    size_t length = (size_t)size;
    bool headed = length < 32 ? wire_byte(wire, (unsigned char)(0xa0 | length))
                              : wire_length(wire, length, 0xd9, 0xda);
    return headed && wire_copy(wire, bytes, length);
}

static bool
wire_bytes(struct wire *wire, PyObject *bytes)
{
    size_t length = (size_t)PyBytes_GET_SIZE(bytes);
    return wire_length(wire, length, 0xc4, 0xc5) &&
           wire_copy(wire, PyBytes_AS_STRING(bytes), length);
}

static bool
wire_key(struct wire *wire, PyObject *key)
{
    if (PyUnicode_CheckExact(key)) {
        return wire_text(wire, key);
    }
    if (PyLong_CheckExact(key)) {
        return wire_int(wire, key);
    }
    return PyBytes_CheckExact(key) && wire_bytes(wire, key);
}

static bool wire_value(struct wire *wire, PyObject *value, int depth);

static bool
wire_map(struct wire *wire, PyObject *map, int depth)
{
    size_t length = (size_t)PyDict_GET_SIZE(map);
    bool fine = length < 16 ? wire_byte(wire, (unsigned char)(0x80 | length))
                            : wire_length(wire, length, 0, 0xde);
    Py_ssize_t position = 0;
    PyObject *key, *value;
    while (fine && PyDict_Next(map, &position, &key, &value)) {
        fine = wire_key(wire, key) && wire_value(wire, value, depth);
    }
    return fine;
}

static bool
wire_array(struct wire *wire, PyObject **items, Py_ssize_t count, int depth)
{
    size_t length = (size_t)count;
    bool fine = length < 16 ? wire_byte(wire, (unsigned char)(0x90 | length))
                            : wire_length(wire, length, 0, 0xdc);
    for (Py_ssize_t i = 0; fine && i < count; i++) {
        fine = wire_value(wire, items[i], depth);
    }
    return fine;
}

static bool
wire_container(struct wire *wire, PyObject *value, int depth)
{
#ifdef Py_GIL_DISABLED /* another thread might change it meanwhile */
    return false;
#endif
    if (depth == WIRE_DEPTH_MAX) {
        return false;
    }
    if (wire->tree && (PyTuple_CheckExact(value) || (depth > 0 && Py_REFCNT(value) != 1))) {
        return false;
    }
    if (PyDict_CheckExact(value)) {
        return wire_map(wire, value, depth + 1);
    }
    if (PyList_CheckExact(value)) {
        return wire_array(wire, PySequence_Fast_ITEMS(value), PyList_GET_SIZE(value), depth + 1);
    }
    return PyTuple_CheckExact(value) &&
           wire_array(wire, PySequence_Fast_ITEMS(value), PyTuple_GET_SIZE(value), depth + 1);
}

/* Pack what is of these very types; false if something else is in it, or too much. */
static bool
wire_value(struct wire *wire, PyObject *value, int depth)
{
    if (PyUnicode_CheckExact(value)) {
        return wire_text(wire, value);
    }
    if (PyLong_CheckExact(value)) {
        return wire_int(wire, value);
    }
    if (value == Py_None) {
        return wire_byte(wire, 0xc0);
    }
    if (PyBool_Check(value)) {
        return wire_byte(wire, value == Py_True ? 0xc3 : 0xc2);
    }
    if (PyBytes_CheckExact(value)) {
        return wire_bytes(wire, value);
    }
    if (PyFloat_CheckExact(value)) {
        return wire_float(wire, value);
    }
    return wire_container(wire, value, depth);
}

static PyObject *
pack(PyObject *Py_UNUSED(module), PyObject *record)
{
    struct wire wire;
    wire_begin(&wire);
    PyObject *packed;
    if (wire_value(&wire, record, 0)) {
        packed = PyBytes_FromStringAndSize((char *)wire.bytes, (Py_ssize_t)wire.used);
    }
    else {
        packed = PyObject_CallOneArg(codec_pack, record);
    }
    wire_end(&wire);
    return packed;
}

/* That nothing else refers to a container inside tells, without a look at the others, that it
   stands there alone. */
static PyObject *
quick_tree(PyObject *Py_UNUSED(module), PyObject *value)
{
    struct wire wire;
    wire_begin(&wire);
    wire.tree = true;
    PyObject *packed = wire_value(&wire, value, 0)
                           ? PyBytes_FromStringAndSize((char *)wire.bytes, (Py_ssize_t)wire.used)
                           : Py_NewRef(Py_None);
    wire_end(&wire);
    return packed;
}

/* The frame of what is in ``wire`` and ``tail``: a head is to be left free before it. */
static PyObject *
wire_frame(struct wire *wire, PyObject *tail)
{
    size_t size = tail ? (size_t)PyBytes_GET_SIZE(tail) : 0;
    size_t message = wire->used - WIRE_HEAD_BYTES + size;
    if (message > WIRE_FRAME_BYTES_MAX) {
        return Py_NewRef(Py_None);
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(wire->used + size));
    if (frame != NULL) {
        wire_big_endian(wire->bytes, message, WIRE_HEAD_BYTES);
        memcpy(PyBytes_AS_STRING(frame), wire->bytes, wire->used);
        if (tail) {
            memcpy(PyBytes_AS_STRING(frame) + wire->used, PyBytes_AS_STRING(tail), size);
        }
    }
    return frame;
}

/* The bytes of the last of some arguments, if that is packed already; NULL if it is not. */
static PyObject *
packed_tail(PyObject *arguments)
{
    Py_ssize_t count = PyList_CheckExact(arguments) ? PyList_GET_SIZE(arguments) : 0;
    PyObject *last = count ? PyList_GET_ITEM(arguments, count - 1) : NULL;
    if (last == NULL || count > 15 || (PyObject *)Py_TYPE(last) != codec_packed) {
        return NULL;
    }
    PyObject *data = PyObject_GetAttr(last, packed_data);
    if (data == NULL || !PyBytes_CheckExact(data)) {
        PyErr_Clear();
        Py_CLEAR(data);
    }
    return data;
}

/* Pack the fields up to the last argument, whose bytes are to follow. */
static bool
wire_before_tail(struct wire *wire, PyObject *const *fields, Py_ssize_t count)
{
    PyObject *arguments = fields[count - 1];
    Py_ssize_t rest = PyList_GET_SIZE(arguments) - 1;
    bool fine = wire_byte(wire, (unsigned char)(0x90 | count));
    for (Py_ssize_t i = 0; fine && i < count - 1; i++) {
        fine = wire_value(wire, fields[i], 1);
    }
    fine = fine && wire_byte(wire, (unsigned char)(0x90 | (rest + 1)));
    for (Py_ssize_t i = 0; fine && i < rest; i++) {
        fine = wire_value(wire, PyList_GET_ITEM(arguments, i), 2);
    }
    return fine;
}

/* Whether the last of some arguments is bytes, and large. */
static bool
large_tail(PyObject *arguments)
{
    Py_ssize_t count = PyList_CheckExact(arguments) ? PyList_GET_SIZE(arguments) : 0;
    PyObject *last = count ? PyList_GET_ITEM(arguments, count - 1) : NULL;
    return last != NULL && PyBytes_CheckExact(last) &&
           PyBytes_GET_SIZE(last) >= WIRE_LAST_BYTES_MAX;
}

static PyObject *
quick_frame(PyObject *Py_UNUSED(module), PyObject *const *fields, Py_ssize_t count)
{
    if (count && large_tail(fields[count - 1])) {
        return Py_NewRef(Py_None);
    }
    struct wire wire;
    wire_begin(&wire);
    (void)wire_more(&wire, WIRE_HEAD_BYTES); /* never more than there is at first */
    PyObject *tail = count && count < 16 ? packed_tail(fields[count - 1]) : NULL;
    bool fine = tail ? wire_before_tail(&wire, fields, count)
                     : wire_array(&wire, (PyObject **)fields, count, 1);
    PyObject *frame = fine ? wire_frame(&wire, tail) : Py_NewRef(Py_None);
    Py_XDECREF(tail);
    wire_end(&wire);
    return frame;
}

/* Pack a record as it is stored, in the shape of bytes. */
static bool
wire_record(struct wire *wire, struct wire *scratch, PyObject *record)
{
    scratch->used = 0;
    return wire_value(scratch, record, 0) && scratch->used <= VALUE_BYTES_MAX &&
           wire_length(wire, scratch->used, 0xc4, 0xc5) &&
           wire_copy(wire, scratch->bytes, scratch->used);
}

/* Pack [key, record as bytes] for each item, as one array. */
static bool
wire_pairs(struct wire *wire, struct wire *scratch, PyObject *records)
{
    PyObject *key, *record;
    Py_ssize_t at = 0;
    size_t count = (size_t)PyDict_GET_SIZE(records);
    bool headed = count < 16 ? wire_byte(wire, (unsigned char)(0x90 | count))
                             : wire_length(wire, count, 0, 0xdc);
    while (headed && PyDict_Next(records, &at, &key, &record)) {
        bool text = PyUnicode_CheckExact(key);
        if (!wire_byte(wire, 0x92) || (!text && !PyBytes_CheckExact(key))) {
            return false;
        }
        size_t before = wire->used;
        if (!(text ? wire_text(wire, key) : wire_bytes(wire, key)) ||
            wire->used - before > KEY_BYTES_MAX || !wire_record(wire, scratch, record)) {
            return false;
        }
    }
    return headed;
}

static PyObject *
quick_pairs(PyObject *Py_UNUSED(module), PyObject *records)
{
    struct wire wire, scratch;
    PyObject *pairs = NULL;
    if (!PyDict_CheckExact(records)) {
        return Py_NewRef(Py_None);
    }
    wire_begin(&wire);
    wire_begin(&scratch);
    wire.bytes_max = WIRE_FRAME_BYTES_MAX;
    if (wire_pairs(&wire, &scratch, records)) {
        PyObject *data = PyBytes_FromStringAndSize((char *)wire.bytes, (Py_ssize_t)wire.used);
        pairs = data ? PyObject_CallOneArg(codec_packed, data) : NULL;
        Py_XDECREF(data);
    }
    else {
        pairs = Py_NewRef(Py_None);
    }
    wire_end(&wire);
    wire_end(&scratch);
    return pairs;
}

/* Bytes that were received, and how far they were read. */
struct heard {
    const unsigned char *at, *end;
};

static bool
heard_unsigned(struct heard *heard, size_t size, uint64_t *number)
{
    if ((size_t)(heard->end - heard->at) < size) {
        return false;
    }
    *number = 0;
    for (size_t i = 0; i < size; i++) {
        *number = *number << 8 | *heard->at++;
    }
    return true;
}

/* An int that is not negative; false if something else comes. */
static bool
heard_count(struct heard *heard, uint64_t *number)
{
    uint64_t kind;
    if (!heard_unsigned(heard, 1, &kind)) {
        return false;
    }
    if (kind < 0x80) {
        *number = kind;
        return true;
    }
    return kind >= 0xcc && kind <= 0xcf &&
           heard_unsigned(heard, (size_t)1 << (kind - 0xcc), number);
}

/* A result that is None, a bool or a count; NULL, perhaps without an exception, if it is not. */
static PyObject *
heard_result(struct heard *heard)
{
    unsigned char kind = heard->at < heard->end ? *heard->at : 0xc1;
    if (kind == 0xc0 || kind == 0xc2 || kind == 0xc3) {
        heard->at++;
        PyObject *result = kind == 0xc0 ? Py_None : kind == 0xc3 ? Py_True : Py_False;
        Py_INCREF(result);
        return result;
    }
    uint64_t number;
    return heard_count(heard, &number) ? PyLong_FromUnsignedLongLong(number) : NULL;
}

/* The next frame as (id, result, None); NULL, perhaps without an exception, if it is not such. */
static PyObject *
heard_answer(struct heard *stream)
{
    uint64_t size, id;
    if (!heard_unsigned(stream, WIRE_HEAD_BYTES, &size) ||
        size > (size_t)(stream->end - stream->at) || size < 4) {
        return NULL;
    }
    struct heard message = {stream->at + 1, stream->at + size};
    if (*stream->at != 0x93 || !heard_count(&message, &id) || id > INT64_MAX ||
        message.at >= message.end || *message.at++ != 0) {
        return NULL;
    }
    PyObject *result = heard_result(&message);
    if (result == NULL || message.at != message.end) {
        Py_XDECREF(result);
        return NULL;
    }
    stream->at = message.end;
    PyObject *answer = PyTuple_New(3);
    PyObject *number = PyLong_FromUnsignedLongLong(id);
    if (answer == NULL || number == NULL) {
        Py_XDECREF(answer);
        Py_XDECREF(number);
        Py_DECREF(result);
        return NULL;
    }
    PyTuple_SET_ITEM(answer, 0, number);
    PyTuple_SET_ITEM(answer, 1, result);
    PyTuple_SET_ITEM(answer, 2, Py_NewRef(Py_None));
    return answer;
}

static PyObject *
quick_answers(PyObject *Py_UNUSED(module), PyObject *data)
{
    if (!PyBytes_CheckExact(data)) {
        return Py_NewRef(Py_None);
    }
    const unsigned char *start = (const unsigned char *)PyBytes_AS_STRING(data);
    struct heard stream = {start, start + PyBytes_GET_SIZE(data)};
    PyObject *answers = PyList_New(0);
    while (answers != NULL && stream.at < stream.end) {
        PyObject *answer = heard_answer(&stream);
        if (answer == NULL || PyList_Append(answers, answer) < 0) {
            Py_CLEAR(answers);
        }
        Py_XDECREF(answer);
    }
    return answers != NULL || PyErr_Occurred() ? answers : Py_NewRef(Py_None);
}

/* The message of the next frame; NULL, perhaps without an exception, if not all of it is there. */
static PyObject *
heard_message(struct heard *stream, uint64_t bytes_max)
{
    uint64_t size;
    if (!heard_unsigned(stream, WIRE_HEAD_BYTES, &size) || size > INT32_MAX || size > bytes_max ||
        size > (size_t)(stream->end - stream->at)) {
        return NULL;
    }
    const char *start = (const char *)stream->at;
    stream->at += size;
    return PyBytes_FromStringAndSize(start, (Py_ssize_t)size);
}

static PyObject *
quick_messages(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_CheckExact(arguments[0])) {
        return Py_NewRef(Py_None);
    }
    uint64_t bytes_max = PyLong_AsUnsignedLongLong(arguments[1]);
    const unsigned char *start = (const unsigned char *)PyBytes_AS_STRING(arguments[0]);
    struct heard stream = {start, start + PyBytes_GET_SIZE(arguments[0])};
    PyObject *messages = PyErr_Occurred() ? NULL : PyList_New(0);
    while (messages != NULL && stream.at < stream.end) {
        PyObject *message = heard_message(&stream, bytes_max);
        if (message == NULL || PyList_Append(messages, message) < 0) {
            Py_CLEAR(messages);
        }
        Py_XDECREF(message);
    }
    return messages != NULL || PyErr_Occurred() ? messages : Py_NewRef(Py_None);
}

static int
wire_setup(void)
{
    static const char *const names[] = {"pack", "Packed"};
    static PyObject **const targets[] = {&codec_pack, &codec_packed};
    packed_data = PyUnicode_InternFromString("data");
    return packed_data ? import_names("shmstore.codec", 2, names, targets) : -1;
}

#define WIRE_METHODS                                                                               \
    {"pack", pack, METH_O, "pack(record)\n--\n\nReturn the record as msgpack; see codec.pack."},   \
        {"quick_frame", (PyCFunction)(void (*)(void))quick_frame, METH_FASTCALL,                   \
         "quick_frame(*fields)\n--\n\n"                                                            \
         "Return a message of these fields in its frame; None if the codec has to make it."},      \
        {"quick_pairs", quick_pairs, METH_O,                                                       \
         "quick_pairs(records)\n--\n\n"                                                            \
         "Return the pairs of put_many, packed; None if there is any that is not plain."},         \
        {"quick_tree", quick_tree, METH_O,                                                         \
         "quick_tree(value)\n--\n\n"                                                               \
         "Return as msgpack what holds each list and dict once, and no tuple; None if unsure."},   \
        {"quick_messages", (PyCFunction)(void (*)(void))quick_messages, METH_FASTCALL,             \
         "quick_messages(data, bytes_max)\n--\n\n"                                                 \
         "Return the messages of whole frames; None if there is anything else in data."},          \
        {"quick_answers", quick_answers, METH_O,                                                   \
         "quick_answers(data)\n--\n\n"                                                             \
         "Return (id, result, None) of each answer in data; None if there is anything else."}

#endif
