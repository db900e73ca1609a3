/* Pins, as Python calls for them: Owner.pin, share_pin, unpin and pins. */

#ifndef SHMSTORE_PINS_TYPE_H
#define SHMSTORE_PINS_TYPE_H

#include "owner_object.h"

/* Look at the name of a holder; the reference engine words what is wrong with it. */
static int
holder_span(PyObject *holder, struct span *span)
{
    if (PyBytes_CheckExact(holder) && PyBytes_GET_SIZE(holder) <= HOLDER_BYTES_MAX) {
        *span = span_of(holder);
        return 0;
    }
    PyObject *name = PyObject_CallOneArg(pure_holder_name, holder);
    if (name != NULL) {
        Py_DECREF(name);
        PyErr_SetString(PyExc_SystemError, "a holder is named by bytes");
    }
    return -1;
}

/* Read a granule; what cannot be one is 0, where no block is. */
static int
granule_of(PyObject *number, uint64_t *granule)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    *granule = overflow || value < 0 || (uint64_t)value > GRANULE_MASK ? 0 : (uint64_t)value;
    return 0;
}

static PyObject *
owner_method_pin(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"holder", "table", "namespace", "key", NULL};
    PyObject *holder, *record[3];
    struct named named;
    struct span name;
    struct fault fault;
    struct entry entry;
    bool found = false;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOOO:pin", names, &holder, &record[0],
                                     &record[1], &record[2]) ||
        holder_span(holder, &name) < 0 || named_open(self, &named, record) < 0) {
        return NULL;
    }
    int outcome = owner_enter(self);
    if (outcome == 0) {
        enum status status = owner_pin(&self->owner, name, &named.lead, &entry, &found, &fault);
        outcome = owner_leave(self, status, &fault);
    }
    named_close(&named);
    if (outcome < 0 || !found) {
        return outcome < 0 ? NULL : Py_NewRef(Py_None);
    }
    uint64_t start = shape_value_start(&entry.shape, entry.granule * GRANULE_BYTES);
    return Py_BuildValue("KKIK", (unsigned long long)entry.granule, (unsigned long long)start,
                         (unsigned int)entry.shape.value_size, (unsigned long long)entry.seq);
}

/* Share a pin or take one away, which is told by ``change``. */
static PyObject *
change_pin(OwnerObject *self, PyObject *holder, PyObject *number,
           enum status (*change)(struct staging *, struct span, uint64_t, bool *, struct fault *))
{
    struct span name;
    struct fault fault;
    uint64_t granule;
    bool changed;
    if (holder_span(holder, &name) < 0 || granule_of(number, &granule) < 0 ||
        owner_enter(self) < 0) {
        return NULL;
    }
    enum status status = change(&self->owner.staging, name, granule, &changed, &fault);
    return owner_leave(self, status, &fault) < 0 ? NULL : PyBool_FromLong(changed);
}

static char *pin_names[] = {"holder", "granule", NULL};

static PyObject *
owner_method_share_pin(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    PyObject *holder, *granule;
    bool parsed = PyArg_ParseTupleAndKeywords(arguments, keywords, "OO:share_pin", pin_names,
                                              &holder, &granule);
    return parsed ? change_pin(self, holder, granule, pins_share) : NULL;
}

static PyObject *
owner_method_unpin(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    PyObject *holder, *granule;
    bool parsed =
        PyArg_ParseTupleAndKeywords(arguments, keywords, "OO:unpin", pin_names, &holder, &granule);
    return parsed ? change_pin(self, holder, granule, pins_remove) : NULL;
}

/* Append (holder, granule, bytes of the value) of a pin. */
static int
append_pin(PyObject *pins, const struct memory *memory, const struct blockmap_item *pin)
{
    struct pin_key key;
    struct fault fault;
    uint64_t granule;
    enum status status = load_pin(memory, pin->key * WORDS_PER_GRANULE, &key, &granule, &fault);
    if (status != FINE) {
        raise_status(status, &fault);
        return -1;
    }
    PyObject *facts =
        Py_BuildValue("y#KI", key.bytes, (Py_ssize_t)(key.size - PIN_GRANULE_BYTES),
                      (unsigned long long)pin->value,
                      (unsigned int)load_shape(memory, pin->value * WORDS_PER_GRANULE).value_size);
    int outcome = facts == NULL ? -1 : PyList_Append(pins, facts);
    Py_XDECREF(facts);
    return outcome;
}

static PyObject *
owner_method_pins(OwnerObject *self, PyObject *Py_UNUSED(unused))
{
    const struct blockmap *entries = &self->owner.staging.heap.pinned.entries;
    const struct blockmap_item *pin;
    PyObject *pins = PyList_New(0);
    if (pins == NULL || owner_enter(self) < 0) {
        Py_XDECREF(pins);
        return NULL;
    }
    int outcome = 0;
    for (size_t at = 0; outcome == 0 && (pin = blockmap_next(entries, &at));) {
        outcome = append_pin(pins, owner_memory(&self->owner), pin);
    }
    self->busy = false;
    if (outcome < 0 || PyList_Sort(pins) < 0) {
        Py_CLEAR(pins);
    }
    return pins;
}

/* Add to the owner's statistics how much is pinned, and how much of it held. */
static int
add_pin_figures(OwnerObject *self, PyObject *figures)
{
    const struct pinned *pinned = &self->owner.staging.heap.pinned;
    const struct memory *memory = owner_memory(&self->owner);
    const struct blockmap_item *item;
    uint64_t blocks = 0, held = 0;
    for (size_t at = 0; (item = blockmap_next(&pinned->counts, &at));) {
        struct shape shape = load_shape(memory, item->key * WORDS_PER_GRANULE);
        blocks += shape_granules(&shape);
    }
    for (size_t at = 0; (item = blockmap_next(&pinned->held, &at));) {
        held += item->value;
    }
    PyObject *more = Py_BuildValue("{sKsKsK}", "pins", (unsigned long long)pinned->entries.count,
                                   "pinned_bytes", (unsigned long long)blocks * GRANULE_BYTES,
                                   "held_bytes", (unsigned long long)held * GRANULE_BYTES);
    int outcome = more == NULL ? -1 : PyDict_Update(figures, more);
    Py_XDECREF(more);
    return outcome;
}

#endif
