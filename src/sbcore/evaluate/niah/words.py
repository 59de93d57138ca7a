"""Words for keys, lists and made sentences; 191,090 adjective-noun pairs.

No word is part of another one: answers are looked for as substrings of a prediction.
"""

_ADJECTIVES = """
acid alert amber ample ancient angry antique arctic arid ashen awake azure balmy bare basic
beige bitter bland blind blond blue blunt bold bony brave brief bright brisk broad broken
bronze brown bulky busy calm candid careful casual cheap cheerful chilly chubby civic civil
clean clever close cloudy clumsy coarse cold common complex cool coral cosy crimson crisp
crooked cruel curious curly curved damp dapper daring dark dear deep dense dim direct distant
dizzy domestic double dreary dry dull dusty eager early earnest elastic elder elegant empty
endless equal evident exact exotic faded faint fair faithful false famous fancy fast fatal
fertile fierce final fine firm flat fluffy fluid foggy fond formal fragile frank fresh
friendly frosty frozen full funny furry gentle giant gifted glad gleaming global gloomy glossy
golden good graceful grand gray greasy great green gritty gross grubby guilty handy happy
hardy harsh hasty hazy healthy heavy hidden hollow holy honest huge humble hungry husky ideal
idle immense indigo inner innocent ivory jade jolly joyful junior keen kind large lavish lazy
legal level limp linear lively local lonely long loose lost lovely loyal lucky lunar magic
main major maroon massive mature mellow merry mighty mild minor misty mobile modern modest
moist mossy muddy murky mute mystic narrow native neat nervous neutral new nimble noble noisy
normal northern obvious ochre odd olive opal open orange ordinary ornate outer oval pale
patient peaceful perfect pink plain playful pleasant plump polar polite poor precise pretty
prime private prompt proper proud public pure purple quaint quick quiet rapid rare ready regal
remote rich rigid ripe robust rocky rosy rough round royal rugged rural russet rusty safe
salty sandy sane scarce scarlet secret senior serene severe shabby shady shallow sharp shiny
short shy silent silky silver simple single sleek sleepy slender slim slow small smart smooth
snowy social soft solar solid sour southern spare sparse special spicy spotted square stable
stale steady sticky stiff still stormy stout straight strange strict strong sturdy subtle
sudden sunny super swift tall tame tangy tart tawny tender tense thick thin thirsty thorny
tidy timid tiny tired tough tranquil trim tropical true twin typical upper urban urgent useful
usual vacant vague valid vast velvet verbal vibrant violet virtual vital vivid vocal warm wary
wavy weak wealthy weary western whole wicked wide wild windy wise witty wooden woolly worn
worthy yellow young zealous
"""

_NOUNS = """
abbey acorn airport alarm album almond anchor ankle antler apple apron arch arena armor artist
atlas attic autumn axle badge bagpipe baker balcony ballad bamboo banana banjo banner barber
barge barley barn barrel basil basin basket battery beach beacon beaker beard beetle bell belt
bench berry bicycle birch biscuit bishop blanket blossom bonnet boot bottle boulder bowl
branch brass bread brick bridge broom brother bucket buckle buffalo builder burrow button
cabbage cabin cactus camel camera canal candle canoe canvas canyon captain caravan carpet
carrot castle cavern cedar cellar cello chain chalk chapel cherry chess chestnut chicken
chimney chisel cider cinema circus citizen clarinet cliff clock clover coach cobbler coffee
collar comet compass copper corner cottage cotton cousin coyote cradle crane crayon creek
cricket crown crystal cupboard curtain cushion cymbal dagger daisy dancer dentist desert desk
diamond diary doctor dolphin donkey door dragon drawer drummer eagle echo elbow elephant
emerald engine envelope estuary fabric factory falcon farmer feather fence fern ferry fiddle
field finger fjord flag flame flannel flask flower flute forest fork fossil fountain fox
freezer furnace galaxy gallery garden garlic garnet gate geyser ginger giraffe glacier glove
goblet goose gorge grape gravel guitar hammer hammock harbor hat hawk hazel hedge helmet heron
hinge honey horizon hornet horse hospital hotel hunter iceberg inkwell iris island ivy jacket
jaguar jar jasmine jelly jewel jigsaw journal juggler jungle juniper kayak kennel kettle
kitchen kite kitten knight ladder lagoon lake lamp lantern laurel lawyer leaf ledger lemon
leopard letter library lighthouse lily linen lion lizard lobster locket locust lodge lotus
magnet magpie mailbox mandolin mango mantle maple marble market marsh mask mason meadow medal
melon merchant meteor mill miner mirror mitten monk monsoon moose mosaic moth motor mountain
museum mushroom napkin necklace needle nephew nickel notebook nurse nutmeg oasis oboe ocean
octopus office onion orchard orchid organ osprey oven oyster paddle painter palace panda
pantry paper parade parcel parrot parsley pasture patio peach pear pebble pelican pencil
pepper petal piano picture pigeon pilgrim pillow pilot pirate pistol pitcher planet plank
plate plaza plow pocket poet pony poplar poppy porch portrait potato pottery prairie prism
pumpkin puppet pyramid quail quarry quartz quilt rabbit raccoon racket radish raft railway
raven razor reed reef ribbon rice river robin rocket rooster rudder saddle sailor salmon
sapphire satchel sauce scarf school scissors sculptor seagull shepherd shield shoe shovel
shrine shutter signal singer skate sketch sledge sleeve slipper snail soldier spade sparrow
spider spinach spindle spiral spoon spruce squirrel stadium stairway stamp statue steeple
stirrup stool stove straw stream sugar sunset surgeon swan tailor tapestry tavern teacher
teapot temple tent theater thimble thistle throne thunder ticket tiger timber toad tobacco
tomato torch tortoise tower tractor train trumpet tulip tunnel turnip turtle umbrella uncle
valley vase vessel village vine violin volcano voyage wagon waiter walnut walrus wardrobe
warehouse waterfall weasel weaver whale wheat wheel whistle widow willow window winter wizard
wolf workshop yacht zebra zipper
"""

ADJECTIVES = tuple(_ADJECTIVES.split())
NOUNS = tuple(_NOUNS.split())
NUM_PAIRS = len(ADJECTIVES) * len(NOUNS)


def pair(index: int) -> str:
    """Returns the adjective-noun pair of an index below ``NUM_PAIRS``, as "quick-lantern"."""
    adjective, noun = divmod(index, len(NOUNS))
    return f"{ADJECTIVES[adjective]}-{NOUNS[noun]}"
