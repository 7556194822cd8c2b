"""Words that people use for what the world builds, beyond the names in `KINDS` and `COLOR_SYNONYMS`.

They are read in prompts and appear in no training caption, so that adding one changes no training data.
"""

from __future__ import annotations

from .kinds import KINDS

NOUNS: dict[str, str] = {
    "mug": "beaker, tankard, coffeecup, beer mug",
    "teapot": "tea kettle, coffee pot",
    "chair": "stool, dining chair, rocking chair, throne",
    "sofa": "loveseat, divan, arm chair, recliner, recliner chair, easy chair, lounge chair",
    "lamp": "reading lamp, night light, floor lamp, nightlight",
    "umbrella": "brolly, beach umbrella",
    "hat": "top hat, sun hat, cowboy hat, party hat, pointed hat, magician hat, chef hat, sorcerer hat",
    "boot": "rubber boot, cowboy boot, wellington boot, welly, gumboot, snow boot, leather boot",
    "car": "taxi, cab, convertible, race car, racing car, sports car, sport car, motorcar, hatchback, limousine, coupe",
    "truck": "pickup, pickup truck, pick up truck, pick up, fire truck, fire engine, monster truck, dump truck, "
    "delivery van, box truck",
    "airplane": "air plane, jet, jet plane, passenger plane, airliner, biplane, propeller airplane",
    "rocket": "space ship, space rocket, space shuttle, spacerocket, space craft",
    "sailboat": "sailing ship, sailing yacht, dinghy, galleon, schooner, caravel, pirate ship",
    "train": "steam engine train, train engine, railway engine, tank engine, locomotive engine",
    "tree": "oak tree, apple tree, maple tree, birch tree, fruit tree, deciduous tree, beech tree, maple",
    "pine tree": "evergreen, evergreen tree, xmas tree, spruce tree, larch, cedar, cedar tree",
    "cactus": "cacti, saguaro, saguaro cactus, potted cactus",
    "tulip": "tulip flower",
    "mushroom": "toad stool, fly agaric",
    "pumpkin": "gourd, halloween pumpkin",
    "cupcake": "cup cake, fairy cake",
    "ice cream": "ice cream sundae, sundae, soft serve, ice cream cornet",
    "donut": "dough nut",
    "house": "mansion, villa, bungalow, farmhouse, chalet",
    "castle": "chateau, citadel, fort, stronghold",
    "lighthouse": "light house, light tower",
    "windmill": "dutch windmill",
    "duck": "mallard, duckie, bath duck, toy duck",
    "fish": "clownfish, clown fish, carp, koi",
    "cat": "pussycat, house cat, tomcat, pussy cat, tabby, tabby cat",
    "penguin": "emperor penguin, king penguin",
    "teddy bear": "stuffed bear, plush bear, toy bear, teddybear, gummy bear",
    "bee": "wasp",
    "turtle": "terrapin",
    "ball": "soccer ball, toy ball, rubber ball",
    "snowman": "snow person",
    "robot": "humanoid robot, toy robot, automaton, mech",
    "guitar": "electric guitar, bass guitar, classical guitar",
    "treasure chest": "treasure trunk, pirate treasure chest, pirate treasure",
    "gift": "giftbox, wrapped gift, wrapped present, present box, parcel, package, christmas present",
}
"""Names of kinds besides those in `KINDS`, in the singular, separated by commas."""

PARTS: dict[str, tuple[str, ...]] = {
    "grip": ("handle",), "striped": ("stripe",), "spotted": ("spot",), "dotted": ("dot",),
    "armrest": ("arm",), "arm rest": ("arm",), "pillow": ("cushion",), "backrest": ("back",),
    "back rest": ("back",), "foot": ("leg",), "feet": ("leg",),
    "lamp shade": ("shade",), "stem": ("stalk", "stand"), "pole": ("stand", "mast"), "bulb": ("light",),
    "ribbon": ("band",), "strap": ("band",), "rim": ("brim",),
    "tire": ("wheel",), "tyre": ("wheel",), "windscreen": ("window",), "windshield": ("window",),
    "porthole": ("window",), "driver's cab": ("cab",), "cabin": ("cab",), "cargo box": ("box",),
    "rotor": ("propeller",), "nose cone": ("nose",), "tip": ("nose",), "smokestack": ("chimney",),
    "smoke stack": ("chimney",), "funnel": ("chimney",), "canvas": ("sail",),
    "crown": ("leaf",), "leave": ("leaf",), "treetop": ("leaf",), "bark": ("trunk",), "bough": ("branch",),
    "bloom": ("petal", "flower"),
    "flower pot": ("pot",), "thorn": ("spine",), "spike": ("spine",), "stalk": ("stem",),
    "polka dot": ("dot",), "speckle": ("spot",), "fleck": ("spot",), "patch": ("spot",),
    "carved face": ("face",), "grin": ("mouth",), "smile": ("mouth",), "buttercream": ("icing",), "glaze": ("icing",),
    "swirl": ("icing",), "crumb": ("sprinkle",), "waffle cone": ("cone",), "wafer": ("cone",), "cornet": ("cone",),
    "rooftop": ("roof",), "turret": ("tower",), "dome": ("roof",), "top": ("roof",), "vane": ("sail",),
    "wing": ("flipper",), "muzzle": ("nose",), "snout": ("nose",), "tummy": ("belly",), "carapace": ("shell",),
    "feeler": ("antenna",), "antennae": ("antenna",), "aerial": ("antenna",),
    "carrot nose": ("nose",), "coal button": ("button",), "twig arm": ("arm",), "fret": ("neck",),
    "fitting": ("band",), "hinge": ("band",), "padlock": ("lock",), "wrapping": ("paper",),
    "wrapping paper": ("paper",),
}  # fmt: skip
"""Words for parts, in the singular: each means the first of the listed parts that the kind has."""

SHADES: dict[str, str] = {
    "maroon": "red", "burgundy": "red", "vermilion": "red", "strawberry": "pink", "raspberry": "pink",
    "amber": "orange", "ginger": "orange", "tangerine": "orange", "copper": "orange", "apricot": "orange",
    "mustard": "yellow", "blond": "yellow", "blonde": "yellow", "straw": "yellow", "brass": "yellow",
    "mint": "green", "jade": "green", "khaki": "green", "sage": "green",
    "indigo": "blue", "cobalt": "blue", "sapphire": "blue", "aqua": "blue", "sky blue": "blue",
    "lavender": "purple", "plum": "purple", "mauve": "purple", "amethyst": "purple",
    "fuchsia": "pink", "salmon": "pink", "coral": "pink",
    "oak": "brown", "walnut": "brown", "mahogany": "brown", "birch": "brown", "timber": "brown", "bronze": "brown",
    "caramel": "brown", "chestnut": "brown", "beige": "white", "terracotta": "brown", "teak": "brown",
    "pine wood": "brown", "bamboo": "brown",
    "marble": "white", "snow white": "white", "pearl": "white",
    "steel": "gray", "iron": "gray", "tin": "gray", "chrome": "gray", "aluminum": "gray", "concrete": "gray",
    "ebony": "black", "onyx": "black", "charcoal": "black",
}  # fmt: skip
"""Colors and materials besides those in `COLOR_SYNONYMS`, and the color that stands for each."""

MATERIALS = frozenset(
    "wood wooden gold silver stone metal oak walnut mahogany birch timber bronze terracotta teak bamboo marble steel "
    "iron tin chrome aluminum concrete copper brass straw jade pine".split()
)
"""Words of colors that an object may be made of, as in "a house of stone"."""

RELATED: dict[str, str] = {
    "dog": "cat, teddy bear", "puppy": "cat, teddy bear", "corgi": "cat, teddy bear", "fox": "cat, teddy bear",
    "tiger": "cat", "lion": "cat", "wolf": "cat", "rabbit": "cat, teddy bear", "bunny": "cat, teddy bear",
    "panda": "teddy bear", "monkey": "teddy bear", "bird": "duck, penguin", "chicken": "duck, penguin",
    "owl": "penguin, duck", "eagle": "penguin, duck", "swan": "duck", "goose": "duck", "frog": "turtle, duck",
    "shark": "fish", "whale": "fish", "dolphin": "fish", "butterfly": "bee", "dragon": "turtle, rocket",
    "person": "snowman, robot", "man": "snowman, robot", "woman": "snowman, robot", "astronaut": "robot, rocket",
    "bus": "truck, car", "schoolbus": "truck, car", "tractor": "truck, train", "motorcycle": "car", "bike": "car",
    "bicycle": "car", "helicopter": "airplane", "drone": "airplane", "submarine": "sailboat, fish",
    "rose": "tulip", "oak": "tree", "orchid": "tulip", "sunflower": "tulip", "daisy": "tulip", "plant": "cactus, tulip",
    "forest": "tree, pine tree", "palm": "tree", "bowl": "mug, teapot", "glass": "mug", "bottle": "mug, teapot",
    "vase": "mug, teapot", "table": "chair, lamp", "bench": "chair, sofa", "bed": "sofa", "desk": "chair, lamp",
    "sneaker": "boot", "helmet": "hat", "crown": "hat", "cap": "hat", "tent": "umbrella, house", "tower":
    "lighthouse, castle", "church": "house, castle", "temple": "castle, house", "bread": "cupcake, donut",
    "cookie": "donut, cupcake", "burger": "cupcake, donut", "hamburger": "cupcake, donut", "pear": "apple",
    "banana": "apple", "strawberry": "apple", "tomato": "apple, pumpkin", "violin": "guitar", "piano": "guitar",
    "box": "gift, treasure chest", "doll": "teddy bear, snowman", "sphere": "ball", "sofa": "chair",
    "castle": "house", "lighthouse": "house, rocket", "windmill": "house", "teapot": "mug", "pine tree": "tree",
    "cat": "teddy bear", "penguin": "duck, snowman", "truck": "car", "train": "car", "airplane": "rocket",
    "ball": "apple", "pumpkin": "apple", "donut": "cupcake", "ice cream": "cupcake", "fish": "duck",
}  # fmt: skip
"""Kinds that are nearest to objects which the world, or a prior of fewer kinds, does not know."""

_EYES = "black white"
PART_COLORS: dict[str, dict[str, str]] = {
    "sofa": {"leg": "brown black"},
    "lamp": {"base": "yellow white", "foot": "yellow white", "stand": "yellow white", "light": "yellow"},
    "umbrella": {"handle": "brown", "stripe": "white *", "panel": "white *"},
    "hat": {"brim": "*", "band": "black", "buckle": "yellow"},
    "car": {"wheel": "black gray", "window": "blue", "headlight": "yellow"},
    "truck": {"wheel": "black gray", "window": "blue", "box": "white", "trailer": "white"},
    "airplane": {"propeller": "gray black", "wheel": "black"},
    "rocket": {"window": "blue", "flame": "orange"},
    "sailboat": {"sail": "white", "mast": "brown", "flag": "*", "deck": "brown"},
    "train": {"window": "blue"},
    "cactus": {"flower": "pink"},
    "apple": {"leaf": "green", "stem": "brown", "stalk": "brown"},
    "pumpkin": {"face": "black brown", "eye": "black brown", "mouth": "black brown"},
    "cupcake": {"case": "brown", "wrapper": "brown", "sprinkle": "yellow blue white"},
    "donut": {"sprinkle": "white yellow blue green"},
    "house": {"wall": "white yellow", "door": "brown", "window": "blue white", "chimney": "red brown"},
    "castle": {"door": "brown", "gate": "brown"},
    "lighthouse": {"door": "brown", "light": "yellow", "lantern": "yellow"},
    "windmill": {"sail": "white brown", "blade": "white brown"},
    "duck": {"eye": _EYES, "wing": "*"},
    "fish": {"eye": _EYES, "stripe": "white"},
    "cat": {"ear": "* pink", "paw": "white", "eye": _EYES, "nose": "pink"},
    "penguin": {"beak": "orange", "belly": "white", "foot": "orange", "feet": "orange", "flipper": "*", "eye": _EYES},
    "teddy bear": {"nose": "black", "eye": _EYES},
    "bee": {"wing": "white blue", "eye": _EYES},
    "snowman": {"hat": "black red", "nose": "orange", "carrot": "orange", "button": "black", "arm": "brown",
                "eye": "black"},
    "robot": {"arm": "gray", "leg": "gray", "eye": "blue yellow", "antenna": "gray"},
    "guitar": {"neck": "brown", "string": "white yellow", "bridge": "black brown"},
    "treasure chest": {"lid": "*"},
}  # fmt: skip
"""Colors in which the builders draw parts that do not take the caption's color; * is the color of the object.

Other parts of a kind come in its `Kind.natural` colors, or in the color of the object if it has none.
"""


def part_colors(name: str, part: str, color: str) -> frozenset[str]:
    """Return the colors in which a part of an object of that kind and color is drawn."""
    known = PART_COLORS.get(name, {}).get(part)
    colors = known.split() if known else KINDS[name].natural or ["*"]
    return frozenset(color if each == "*" else each for each in colors)
