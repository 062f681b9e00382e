"""The world of the generated ads data: who the users are, what the items are, who sees and views what.

Indices are internal here: 0 is the most popular, and items lie category by category. Ids, as written to files, are
scattered and start at 1, so that 0 stays free for "missing".
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tools.data._random import Floats, Ints, Scatter, Stream, pick, zipf_rank, zipf_share

HISTORY = 50
INTERESTS = 5
PROFILE = {
    "gender": 2,
    "age_level": 7,
    "shopping_level": 3,
    "occupation": 8,
    "city_level": 4,
    "pvalue_level": 3,
    "cms_segid": 98,
}
POSITIONS = 6

_TOPICS = 12
_BRANDS_PER_CATEGORY = 30
_TASTE_RANK = 4
_TASTE_SHARPNESS = 1.2  # how far a segment's interests lie from everybody's
_PERSONAL = 0.8  # share of impressions drawn from the user's interests; the rest from everybody's
_SESSION = 6  # views in a row that belong to one interest
_SESSION_LOYALTY = 0.75
_FOREIGN = 0.1  # share of views outside the user's interests
_INTEREST_WEIGHTS = np.array([0.30, 0.23, 0.18, 0.15, 0.14])
_ITEM_OFFSET = 1.0
_USER_EXPONENT, _USER_OFFSET = 0.8, 50.0

_START = 1_704_067_200  # Monday 2024-01-01 00:00 UTC
_TRAFFIC = np.array([2, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 7, 8, 9, 8, 5], dtype=np.float64)


@dataclasses.dataclass(frozen=True)
class Impressions:
    """Rows before their labels; every array is [B], profile levels are 0 where the cell is missing."""

    row: Ints
    user: Ints
    profile: dict[str, Ints]
    item: Ints
    pid: Ints
    event_time: Ints
    views: Ints  # how many items the user has viewed so far, HISTORY or more of which are not shown

    @property
    def hour(self) -> Ints:
        """Hour of the day, 0 to 23 (UTC)."""
        return (self.event_time // 3600) % 24

    @property
    def weekday(self) -> Ints:
        """Day of the week, 0 (Monday) to 6."""
        return ((self.event_time - _START) // 86400) % 7


@dataclasses.dataclass(frozen=True)
class Histories:
    """The last views of each row, most recent first, laid end to end."""

    lengths: Ints  # [B], 0 to HISTORY
    owner: Ints  # [N], the row of each view
    position: Ints  # [N], 0 is the most recent
    item: Ints  # [N]


class Catalogue:
    """Items with their category, brand, customer and price, as tables of internal indices."""

    def __init__(self, seed: int, items: int):
        self.items = items
        self.categories = int(np.clip(items // 250, 8, 200))
        self.brands = max(self.categories, items // 25)
        self.customers = max(self.categories, items // 6)
        if items < self.categories:
            raise ValueError(f"Expected at least {self.categories} items. Received: items={items}")
        rank = np.arange(self.categories)
        popularity = (rank + 3.0) ** -0.7
        self.category_share: Floats = popularity / popularity.sum()
        self.topic: Ints = pick(np.arange(1, _TOPICS + 1) / _TOPICS, Stream(seed, "topic").uniform(rank))

        # Every category has an item; the others fall to the categories by popularity.
        index = np.arange(items)
        drawn = pick(np.cumsum(self.category_share), Stream(seed, "category").uniform(index))
        self.category: Ints = np.sort(np.where(index < self.categories, index, drawn))
        self.size: Ints = np.bincount(self.category, minlength=self.categories)
        self.first: Ints = np.cumsum(self.size) - self.size
        rank_in_category = index - self.first[self.category]
        self.share_in_category = zipf_share(rank_in_category, self.size[self.category], _ITEM_OFFSET)
        self.item_share: Floats = self.category_share[self.category] * self.share_in_category

        # A brand has its places in several categories, a customer (advertiser) sells a few brands.
        place = zipf_rank(Stream(seed, "brand").uniform(index), _BRANDS_PER_CATEGORY, 1.0, 1.0)
        brand_of_place = Stream(seed, "place").uniform(self.category, place)
        self.brand: Ints = (brand_of_place * self.brands).astype(np.int64)
        seller = Stream(seed, "seller").bits(index) % np.uint64(4)
        self.customer: Ints = (Stream(seed, "customer").uniform(self.brand, seller) * self.customers).astype(np.int64)
        self.tier: Floats = Stream(seed, "tier").normal(np.arange(self.brands))

        level = Stream(seed, "price level").normal(rank)
        log_price = 3.5 + 0.9 * level[self.category] + 0.5 * self.tier[self.brand]
        log_price += 0.5 * Stream(seed, "price").normal(index)
        self.price = np.maximum(np.round(np.exp(log_price), 2), 0.01).astype(np.float32)

        self._item_id = Scatter(items, seed, "item")
        self._cate_id = Scatter(self.categories, seed, "category")
        self._brand_id = Scatter(self.brands, seed, "brand")
        self._customer_id = Scatter(self.customers, seed, "customer")

    def columns(self, item: Ints) -> dict[str, np.ndarray]:
        """The columns, as written to files, of the items at internal indices [N]."""
        return {
            "item_id": self._item_id(item) + 1,
            "cate_id": self._cate_id(self.category[item]) + 1,
            "brand_id": self._brand_id(self.brand[item]) + 1,
            "customer_id": self._customer_id(self.customer[item]) + 1,
            "price": self.price[item],
        }

    def draw(self, category: Ints, uniform: Floats) -> Ints:
        """Items drawn from categories [N], the popular ones more often (Zipf)."""
        return self.first[category] + zipf_rank(uniform, self.size[category], 1.0, _ITEM_OFFSET)


class Tastes:
    """How profiles and categories go together: low-rank tables, each of mean 0 over levels and deviation 1.

    Level 0, a missing cell, is indifferent.
    """

    def __init__(self, seed: int, catalogue: Catalogue):
        category = np.arange(catalogue.categories)[:, None]
        rank = np.arange(_TASTE_RANK)
        of_topic = Stream(seed, "topic vector").normal(np.arange(_TOPICS)[:, None], rank)
        own = Stream(seed, "category vector").normal(category, rank)
        self._vectors = np.sqrt(0.8) * of_topic[catalogue.topic] + np.sqrt(0.2) * own

        segment = np.arange(PROFILE["cms_segid"])
        gender, age = segment // 49, segment // 7 % 7
        vectors = np.sqrt(0.3) * Stream(seed, "gender vector").normal(gender[:, None], rank)
        vectors += np.sqrt(0.3) * Stream(seed, "age vector").normal(age[:, None], rank)
        vectors += np.sqrt(0.2) * Stream(seed, "gender and age vector").normal(gender[:, None], age[:, None], rank)
        vectors += np.sqrt(0.2) * Stream(seed, "segment vector").normal(segment[:, None], rank)
        self.segment = self._table(vectors)
        self.occupation = self._table(
            Stream(seed, "occupation").normal(np.arange(PROFILE["occupation"])[:, None], rank)
        )
        self.city = self._table(Stream(seed, "city").normal(np.arange(PROFILE["city_level"])[:, None], rank))

    def _table(self, levels: Floats) -> Floats:
        # Not a matrix product: BLAS may round differently on another machine.
        table = (levels[:, None, :] * self._vectors[None, :, :]).sum(axis=2)
        table -= table.mean(axis=0)
        return np.concatenate([np.zeros((1, table.shape[1])), table / table.std()])


class Population:
    """Users, what they are shown (impressions) and what they viewed before (histories)."""

    def __init__(self, seed: int, users: int, items: int):
        self.users = users
        self.catalogue = Catalogue(seed, items)
        self.tastes = Tastes(seed, self.catalogue)
        self._seed = seed
        self._user_id = Scatter(users, seed, "user")
        weights = self.catalogue.category_share * np.exp(_TASTE_SHARPNESS * self.tastes.segment)
        shares = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
        shares[:, -1] = 1.0
        # One sorted array for all segments: segment s holds s to s + 1.
        self._interest_shares = (shares + np.arange(len(shares))[:, None]).ravel()
        self._everybody = np.cumsum(self.catalogue.category_share)

    def user_id(self, user: Ints) -> Ints:
        """Ids, as written to files, of the users at internal indices [N]."""
        return self._user_id(user) + 1

    def profile(self, user: Ints) -> dict[str, Ints]:
        """Levels [N] of each profile column, 0 where missing: 3 % have no profile, some cells are missing alone."""
        draw = {name: Stream(self._seed, f"profile/{name}").uniform(user) for name in (*PROFILE, "known", "sub")}
        gender = 1 + pick(np.array([0.38, 1.0]), draw["gender"])
        age = 1 + pick(np.cumsum([0.06, 0.12, 0.24, 0.26, 0.19, 0.10, 0.03]), draw["age_level"])
        levels = {
            "gender": gender,
            "age_level": age,
            "shopping_level": 1 + pick(np.cumsum([0.15, 0.25, 0.60]), draw["shopping_level"]),
            "occupation": 1 + (draw["occupation"] * PROFILE["occupation"]).astype(np.int64),
            "city_level": pick(np.cumsum([0.08, 0.15, 0.37, 0.25, 0.15]), draw["city_level"]),
            "pvalue_level": pick(np.cumsum([0.20, 0.25, 0.40, 0.15]), draw["pvalue_level"]),
            "cms_segid": 1 + (gender - 1) * 49 + (age - 1) * 7 + (draw["sub"] * 7).astype(np.int64),
        }
        known = draw["known"] >= 0.03
        return {name: np.where(known, level, 0) for name, level in levels.items()}

    def interests(self, user: Ints, segment: Ints) -> Ints:
        """The hidden interests [N, INTERESTS] of users: categories, the strongest first (one may come twice)."""
        uniform = Stream(self._seed, "interests").uniform(user[:, None], np.arange(INTERESTS))
        place = np.searchsorted(self._interest_shares, segment[:, None] + uniform, side="right")
        categories = self.catalogue.categories
        return np.clip(place - segment[:, None] * categories, 0, categories - 1)

    def exposure(self) -> Floats:
        """The share of a user's impressions that each of their hidden interests brings, [INTERESTS]."""
        return _PERSONAL * _INTEREST_WEIGHTS

    def impressions(self, row: Ints, event_time: Ints) -> Impressions:
        """Who sees what at rows [B], which may be any rows, in any order."""

        def uniform(name: str) -> Floats:
            return Stream(self._seed, name).uniform(row)

        user = zipf_rank(uniform("row/user"), self.users, _USER_EXPONENT, _USER_OFFSET)
        profile = self.profile(user)
        interests = self.interests(user, profile["cms_segid"])
        own = np.take_along_axis(interests, pick(np.cumsum(_INTEREST_WEIGHTS), uniform("row/interest"))[:, None], 1)
        category = np.where(
            uniform("row/personal") < _PERSONAL, own[:, 0], pick(self._everybody, uniform("row/category"))
        )
        return Impressions(
            row=row,
            user=user,
            profile=profile,
            item=self.catalogue.draw(category, uniform("row/item")),
            pid=1 + pick(np.cumsum([0.30, 0.22, 0.17, 0.13, 0.10, 0.08]), uniform("row/pid")),
            event_time=event_time,
            views=self._views(user, event_time),
        )

    def _views(self, user: Ints, event_time: Ints) -> Ints:
        """How many items a user has viewed by a time: a stock from before the first day, and a steady daily rate."""
        stock = np.exp(np.log(13.0) + Stream(self._seed, "stock").normal(user))
        daily = 0.4 * np.exp(0.7 * Stream(self._seed, "daily views").normal(user))
        novelty = Stream(self._seed, "novelty").uniform(user)
        stock[novelty < 0.08] = 0.0  # new on the first day
        daily[novelty < 0.04] = 0.0  # and never viewing anything but ads
        return (stock + daily * (event_time - _START) / 86400).astype(np.int64)

    def interests_given(self, impressions: Impressions, replica: int) -> Ints:
        """Interests [B, INTERESTS] that users with such profiles, shown such categories, might have.

        An exact draw from the conditional distribution: who was shown a category for one of their interests has it
        as that interest, and the other interests are independent.
        """
        segment, category = impressions.profile["cms_segid"], self.catalogue.category[impressions.item]
        stream = Stream(self._seed, "interests of others")
        interests = self.interests(stream.bits(replica, impressions.row).astype(np.int64), segment)
        place = segment * self.catalogue.categories + category
        upper = self._interest_shares[place] - segment
        liking = upper - np.where(category > 0, self._interest_shares[place - 1] - segment, 0.0)
        personal = _PERSONAL * liking
        personal = personal / (personal + (1 - _PERSONAL) * self.catalogue.category_share[category])
        uniform = stream.uniform(replica, impressions.row, 1) / personal
        chosen = np.flatnonzero(uniform < 1.0)
        interests[chosen, pick(np.cumsum(_INTEREST_WEIGHTS), uniform[chosen])] = category[chosen]
        return interests

    def histories(self, impressions: Impressions, replica: int = 0, interests: Ints | None = None) -> Histories:
        """The last HISTORY views of each impression's user at its time.

        A view is a function of user and running number, so histories of one user overlap as they do in life. Views
        come in sessions of one interest. `replica` draws other views for the same users: 0 are the ones in the files.
        `interests` [B, INTERESTS] stand in for the users' own.
        """
        lengths = np.minimum(impressions.views, HISTORY)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        position = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        user = impressions.user[owner]
        number = impressions.views[owner] - 1 - position
        if interests is None:
            interests = self.interests(impressions.user, impressions.profile["cms_segid"])

        def uniform(name: str, index: Ints) -> Floats:
            return Stream(self._seed, f"view/{name}").uniform(replica, user, index)

        weights = np.cumsum(_INTEREST_WEIGHTS)
        in_session = pick(weights, uniform("session", number // _SESSION))
        kind = uniform("kind", number)
        interest = np.where(kind < _SESSION_LOYALTY, in_session, pick(weights, uniform("interest", number)))
        foreign = pick(self._everybody, uniform("category", number))
        category = np.where(kind >= 1.0 - _FOREIGN, foreign, interests[owner, interest])
        return Histories(lengths, owner, position, self.catalogue.draw(category, uniform("item", number)))


def event_times(row: Ints, total: int, days: float, seed: int) -> Ints:
    """Times [B] (seconds since 1970) of rows of `total`, never falling, busy in the evening and quiet at night."""
    day = (row + Stream(seed, "row/time").uniform(row)) / total * days
    share = np.concatenate([[0.0], np.cumsum(_TRAFFIC / _TRAFFIC.sum())])
    hours = np.interp(day % 1.0, share, np.arange(25.0))
    return _START + (np.floor(day) * 86400 + np.minimum(hours * 3600, 86399)).astype(np.int64)
