"""What records and passages are made of: lists written for this model, and names put together from syllables."""

from ops.demo.tasks.draw import Draw
from ops.demo.tasks.texts import listed

FIRST_NAMES = listed("""
    Ada Alan Alice Amir Ana Anton Aris Asha Ben Bela Boris Bruno Carla Carlos Cora Dana Daniel Dora Elena Elias Emil
    Emma Eric Eva Farid Felix Fiona Frida Gina Greta Hana Hugo Ida Igor Ines Iris Ivan Jana Joel Jonas Jules Kai
    Karin Kira Lara Lars Lena Leo Lina Lisa Luca Lucy Maja Marco Maria Mark Marta Max Mila Mira Nadia Nico Nina Noah
    Nora Olga Oliver Omar Oscar Otto Paul Pavel Petra Pia Priya Rafa Rana Remo Rita Robin Rosa Ruben Sam Sara Sasha
    Selma Simon Sofia Sven Tara Theo Tim Tina Tom Uma Vera Victor Viola Wanda Yara Yuri Zoe
""")
_STARTS = listed("""
    Al An Bar Bel Ber Bor Bran Cal Can Car Cor Dal Dan Del Dor Fal Far Fen Fin Gal Gar Gil Hal Har Hol Jan Jor Kal
    Kar Kel Kor Lam Lan Lor Mal Mar Mel Mon Mor Nal Nor Or Pal Par Pel Per Ral Ran Rol Ros Sal San Sel Sol Tal Tar
    Tor Ul Val Van Vel Vol Wal War Wil Zan Zel
""")
_MIDDLES = ("", "", "a", "e", "i", "o", "en", "in", "er", "el", "an", "is")
_ENDS = listed("""
    ba berg da dell den do dorf ford gan ger go ham ka ker la land ler lin lo ma man mer mont na ner ni now ra ri ro
    sen ski son stein ta ter ton va vich vin wick wood za
""")

JOBS = listed("""
    baker teacher nurse farmer pilot driver cook painter lawyer doctor writer singer dentist plumber gardener
    engineer librarian carpenter tailor waiter judge sailor butcher chemist
""")
ANIMALS = listed("""
    cat dog horse rabbit parrot goat hamster turtle pony hen duck sheep donkey lizard canary pig
""")
COLOURS = listed("""
    red blue green yellow black white brown grey orange purple pink
""")
PLACES = listed("""
    kitchen garden office cellar garage library attic hall bathroom bedroom barn market station school park museum
    harbour bakery church theatre
""")
THINGS = listed("""
    apple ball book bottle box bread brush button cake candle chair clock coat coin cup desk drum egg fan flag flute
    fork glass glove hammer hat jacket jar key kite knife lamp leaf lemon letter map mirror mug nail needle nut
    onion orange paper pear pen pencil phone piano pillow plate plum potato ring rope ruler scarf shell shirt shoe
    soap sock spoon stamp stone table tent ticket tomato towel toy train tray umbrella vase violin wallet watch
    wheel window
""")
ADJECTIVES = listed("""
    big small old new long short heavy light round flat clean dirty warm cold soft hard bright dark quiet loud cheap
    rare plain fine
""")
VERBS = listed("""
    holds hides finds moves sells paints breaks carries drops cleans counts lifts opens brings keeps
""")
HOBBIES = listed("""
    chess tennis swimming painting singing hiking cooking reading football dancing fishing knitting cycling sailing
    running skating
""")
FOODS = listed("""
    soup rice pasta salad fish cheese bread cake pizza curry beans eggs apples noodles plums honey
""")
MONTHS = listed("""
    January February March April May June July August September October November December
""")
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
COMPLAINTS = tuple(
    complaint.replace("_", " ")
    for complaint in listed("""
        rash headache back_pain cough fever sore_throat chest_pain dizziness knee_pain nausea fatigue ear_pain
        stomach_pain swollen_ankle shortness_of_breath toothache itching insomnia neck_pain burning_eyes hip_pain cramps
        hoarseness palpitations joint_pain runny_nose blurred_vision numb_fingers
    """)
)
DRUGS = listed("""
    ibuprofen paracetamol amoxicillin aspirin metformin lisinopril omeprazole cetirizine ramipril prednisone
    naproxen doxycycline insulin codeine loratadine simvastatin furosemide tramadol atenolol warfarin
""")
ALLERGIES = listed("""
    penicillin latex pollen nuts aspirin eggs dust shellfish milk soy
""")
ARTICLES = listed("""
    chairs desks lamps printers cables screens books pens folders bolts pumps filters tyres batteries boxes tiles
    carpets keyboards shelves helmets gloves valves hoses panels
""")
CURRENCIES = ("EUR", "USD", "GBP", "CHF")


def first_name(draw: Draw) -> str:
    """Of a person."""
    return draw.one(FIRST_NAMES)


def surname(draw: Draw) -> str:
    """One of more than 30,000, of this draw's side."""

    def make() -> tuple[str, str]:
        name = draw.one(_STARTS) + draw.one(_MIDDLES) + draw.one(_ENDS)
        return f"name {name}", name

    return draw.on_side(make)[1]


def full_name(draw: Draw) -> str:
    """First name and surname."""
    return f"{first_name(draw)} {surname(draw)}"


def town(draw: Draw) -> str:
    """A place's name, of this draw's side."""
    return surname(draw)


def company(draw: Draw) -> str:
    """A firm's name."""
    return f"{surname(draw)} {draw.one(('Ltd', 'Inc', 'GmbH', 'Co', 'Group', 'Partners'))}"


def words(text: list[str]) -> str:
    """`a, b and c`."""
    return text[0] if len(text) == 1 else f"{', '.join(text[:-1])} and {text[-1]}"
