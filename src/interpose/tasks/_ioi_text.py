"""What indirect object identification is written with: sentences, names, places and objects, all our own.

Every sentence mentions two people, then one of them again, and stops right before the other one's name. A name always
follows a space, so that in most vocabularies it is one token. The split is part of the data: a sentence or a name that
is seen in training is never seen in validation or test, whatever the model.
"""

from types import MappingProxyType

TEMPLATES = MappingProxyType(
    {
        "train": (
            "While {first} and {second} were waiting outside the {place}, {subject} handed {object} to",
            "On Tuesday {first} met {second} at the {place}, and before leaving {subject} gave {object} to",
            "Because {first} and {second} had both been at the {place} all day, {subject} offered {object} to",
            "Last summer {first} and {second} worked at the {place}. One evening {subject} offered {object} to",
            "Nobody noticed that {first} and {second} had left the {place}. Outside, {subject} passed {object} to",
            "It was raining when {first} and {second} reached the {place}, so {subject} lent {object} to",
            "Yesterday {first} ran into {second} near the {place}, and {subject} showed {object} to",
            "Once {first} and {second} had found a seat at the {place}, {subject} slid {object} over to",
            "Somewhere behind the {place}, {first} and {second} stopped to talk, and {subject} sold {object} to",
            "Every spring {first} visits {second} at the {place}, and every time {subject} presents {object} to",
            "In this story {first} and {second} get lost near the {place}. At last {subject} throws {object} to",
            "Neighbours say that {first} and {second} often sit by the {place}, where {subject} once gave {object} to",
            "As soon as {first} saw {second} at the {place}, it was clear that {subject} had promised {object} to",
            "To help out at the {place}, {first} and {second} stayed on, and at midnight {subject} gave {object} to",
            "On the way to the {place}, {first} and {second} began to argue, until {subject} returned {object} to",
            "Two old friends, {first} and {second}, live above the {place}. This morning {subject} left {object} for",
        ),
        "validation": (
            "Before the {place} closed, {first} and {second} looked around, and {subject} bought {object} for",
            "Early in the morning {first} drove {second} to the {place}, where {subject} delivered {object} to",
            "The others had left, but {first} and {second} were still at the {place}, and {subject} showed {object} to",
            "We know that {first} and {second} were seen at the {place} at noon, when {subject} gave {object} to",
            "Halfway to the {place}, {first} asked {second} to wait, and a minute later {subject} tossed {object} to",
            "After a tour of the {place}, {first} and {second} shook hands, and {subject} awarded {object} to",
            "My cousins {first} and {second} met again at the {place}. With a smile, {subject} handed {object} to",
            "At the party next to the {place}, {first} danced with {second}, and later {subject} gave {object} to",
        ),
        "test": (
            "During a long visit to the {place}, {first} and {second} became friends, and {subject} sent {object} to",
            "If {first} and {second} are both at the {place} tonight, {subject} will give {object} to",
            "One table was free at the {place}, so {first} and {second} took it, and {subject} pushed {object} over to",
            "For years {first} and {second} ran the {place} together. On the last day {subject} handed {object} to",
            "Although {first} had never trusted {second}, at the {place} that night {subject} offered {object} to",
            "Not far from the {place}, {first} and {second} were packing the car, and {subject} passed {object} to",
            "The photograph shows {first} and {second} in front of the {place}, just as {subject} gives {object} to",
            "Whenever {first} and {second} meet at the {place}, {subject} gives {object} to",
        ),
    }
)

_WRITTEN_NAMES = (
    "Aaron Adam Alan Albert Alfred Alice Alison Allen Amanda Amy Andrea Andrew Angela Anita Anna Anne Anthony "
    "Arnold Arthur Barbara Beatrice Ben Benjamin Bernard Beth Betty Bill Bob Brenda Brian Bruce Bryan Calvin Carl "
    "Carlos Carol Caroline Catherine Cecil Charles Charlie Charlotte Chloe Chris Christine Christopher Cindy "
    "Claire Clara Colin Cynthia Dan Daniel David Deborah Dennis Derek Diana Diane Donald Donna Dorothy Doug "
    "Duncan Edgar Edith Edward Edwin Eileen Elaine Eleanor Elizabeth Ellen Emily Emma Eric Erica Erin Ernest "
    "Ethan Eugene Eva Evelyn Felix Fiona Frances Frank Fred Gabriel Gary Gavin Geoffrey George Gerald Gilbert "
    "Gina Glen Gordon Greg Hannah Harold Harriet Harry Hazel Heather Helen Henry Herbert Howard Hugh Hugo Ian "
    "Irene Isaac Isabel Ivan Jack Jacob Jake James Jane Janet Jason Jean Jeff Jennifer Jenny Jeremy Jerome Jesse "
    "Jessica Jill Jim Jimmy Joan Joe Joel John Jonathan Joseph Joshua Joyce Juan Judith Judy Julia Julian Julie "
    "Justin Karen Karl Kate Katherine Kathleen Katie Keith Kelly Ken Kenneth Kevin Kim Kyle Larry Laura Lauren "
    "Leah Leo Leon Leonard Linda Lisa Louis Louise Lucas Lucy Luis Luke Lydia Marcus Margaret Maria Marie Martha "
    "Martin Mary Matthew Megan Melissa Michael Michelle Miguel Mike Molly Monica Nancy Naomi Natalie Nathan Neil "
    "Nicholas Nick Nicole Nina Noah Norman Oliver Olivia Oscar Owen Pamela Patricia Patrick Paul Paula Pedro "
    "Peter Philip Rachel Ralph Raymond Rebecca Richard Rita Robert Roger Ronald Ruth Ryan Sally Sam Samantha "
    "Samuel Sandra Sara Sarah Sean Sharon Sheila Simon Sophia Sophie Stanley Stephanie Stephen Steve Steven "
    "Stuart Susan Sylvia Ted Teresa Theodore Thomas Tim Timothy Tina Tom Tony Valerie Vanessa Vera Veronica "
    "Victor Victoria Vincent Walter Wendy William Zoe"
)
_NAMES = _WRITTEN_NAMES.split()

# Alphabetical neighbours (Sara and Sarah, Stephen and Steven) fall into different splits or apart, and each split
# has names from the whole alphabet: out of every four, two are for training.
NAMES = MappingProxyType(
    {
        "train": tuple(name for place, name in enumerate(_NAMES) if place % 4 < 2),
        "validation": tuple(name for place, name in enumerate(_NAMES) if place % 4 == 2),
        "test": tuple(name for place, name in enumerate(_NAMES) if place % 4 == 3),
    }
)

_WRITTEN_PLACES = (
    "airport, bakery, bank, bookshop, brewery, cafe, campsite, castle, church, cinema, circus, embassy, farm, "
    "florist, gallery, gym, hospital, hotel, library, lighthouse, market, museum, observatory, office, pool, post "
    "office, restaurant, school, stadium, station, theatre, town hall, university, workshop, zoo"
)
PLACES = tuple(_WRITTEN_PLACES.split(", "))

_WRITTEN_OBJECTS = (
    "an apple, a basket, a blanket, a book, a bottle, a bracelet, a cake, a camera, a candle, a clock, a coat, a "
    "coin, a cup, a flower, a guitar, a hat, a key, a ladder, a lamp, a letter, a map, a mirror, a notebook, an "
    "orange, a painting, a parcel, a pen, a photograph, a radio, a ring, a sandwich, a scarf, a ticket, a toy, an "
    "umbrella, a violin"
)
OBJECTS = tuple(_WRITTEN_OBJECTS.split(", "))
