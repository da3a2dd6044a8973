"""What to cite for a result, as BibTeX, and in a few words.

>>> [c.key for c in citations({"ase"}, "blocking")]
['petdosmd', 'petmaddos', 'pet', 'llpr', 'ase', 'blocking']
>>> print(citations(set(), "autocorrelation", members=False)[-1].bibtex().splitlines()[0])
@article{autocorrelation,

The list is that of ``CITATION.cff``, of which a result needs a part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version


@dataclass(frozen=True)
class Citation:
    """An entry of a list of references.

    :param what: what it is cited for
    :param fields: of BibTeX, by name
    """

    key: str
    kind: str
    what: str
    fields: dict[str, str]

    def bibtex(self) -> str:
        """The entry."""
        lines = [f"  {name} = {{{value}}}," for name, value in self.fields.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])

    def short(self) -> str:
        """First author, place and year, as in a list of references."""
        f = self.fields
        first = f["author"].split(" and ")[0].strip("{}")
        more = " et al." if " and " in f["author"] else ""
        place = " ".join(
            x for x in (f.get("journal", f.get("booktitle", "")), f.get("volume", ""), f.get("pages", "")) if x
        )
        text = f"{first}{more}, {f['title']}{', ' + place if place else ''} ({f['year']})"
        for tex, plain in (("{", ""), ("}", ""), ("---", "\u2014"), ("--", "\u2013")):
            text = text.replace(tex, plain)
        return text


def citations(
    engines: Iterable[str], error_method: str, *, members: bool = True, reweighted: bool = False
) -> list[Citation]:
    """What was used.

    :param engines: names as in a trace: ``ase``, ``lammps``, ``i-pi``
    :param error_method: of the sampling error: ``autocorrelation`` or ``blocking``
    :param members: whether there is an ensemble
    :param reweighted: whether MBAR was used
    """
    used = set(engines)
    wanted = [
        "petmaddos",
        "pet",
        *(["llpr"] if members else []),
        *(key for key in _ENGINES if key in used),
        error_method,
    ]
    if reweighted:
        wanted.append("mbar")
    software = {
        "author": "{The petdos-md developers}",
        "title": "{petdos-md}: thermal-average electronic density of states and electronic heat capacity",
        "year": "2026",
        "version": version("petdos-md"),
    }
    by_key = {c.key: c for c in _KNOWN}
    keys = [_ENGINES.get(key, key) for key in wanted]
    return [Citation("petdosmd", "software", "this program", software), *(by_key[key] for key in keys)]


_ENGINES = {"ase": "ase", "rerun": "ase", "lammps": "lammps", "i-pi": "ipi"}
_MLST = "Machine Learning: Science and Technology"
_CPC = "Computer Physics Communications"
_JCP = "The Journal of Chemical Physics"
_KNOWN = (
    Citation(
        "petmaddos",
        "article",
        "the method",
        {
            "author": "How, Wei Bin and Febrer, Pol and Chong, Sanggyu and Mazitov, Arslan and Bigi, Filippo and Kellner, Matthias "
            "and Pozdnyakov, Sergey and Ceriotti, Michele",
            "title": "A universal machine learning model for the electronic density of states",
            "journal": "Digital Discovery",
            "year": "2026",
            "doi": "10.1039/D5DD00557D",
        },
    ),
    Citation(
        "pet",
        "inproceedings",
        "the network",
        {
            "author": "Pozdnyakov, Sergey and Ceriotti, Michele",
            "title": "Smooth, exact rotational symmetrization for deep learning on point clouds",
            "booktitle": "Advances in Neural Information Processing Systems",
            "volume": "36",
            "pages": "79469--79501",
            "year": "2023",
        },
    ),
    Citation(
        "llpr",
        "article",
        "the ensemble",
        {
            "author": "Bigi, Filippo and Chong, Sanggyu and Ceriotti, Michele and Grasselli, Federico",
            "title": "A prediction rigidity formalism for low-cost uncertainties in trained neural networks",
            "journal": _MLST,
            "volume": "5",
            "pages": "045018",
            "year": "2024",
            "doi": "10.1088/2632-2153/ad805f",
        },
    ),
    Citation(
        "ase",
        "article",
        "the engine",
        {
            "author": "Larsen, Ask Hjorth and Mortensen, Jens J{\\o}rgen and Blomqvist, Jakob and others",
            "title": "The atomic simulation environment---a {Python} library for working with atoms",
            "journal": "Journal of Physics: Condensed Matter",
            "volume": "29",
            "pages": "273002",
            "year": "2017",
            "doi": "10.1088/1361-648X/aa680e",
        },
    ),
    Citation(
        "lammps",
        "article",
        "the engine",
        {
            "author": "Thompson, Aidan P. and Aktulga, H. Metin and Berger, Richard and others",
            "title": "{LAMMPS} - a flexible simulation tool for particle-based materials modeling at the atomic, meso, and continuum scales",
            "journal": _CPC,
            "volume": "271",
            "pages": "108171",
            "year": "2022",
            "doi": "10.1016/j.cpc.2021.108171",
        },
    ),
    Citation(
        "ipi",
        "article",
        "the engine",
        {
            "author": "Litman, Yair and Kapil, Venkat and Feldman, Yotam M. Y. and others",
            "title": "i-{PI} 3.0: A flexible and efficient framework for advanced atomistic simulations",
            "journal": _JCP,
            "volume": "161",
            "pages": "062504",
            "year": "2024",
            "doi": "10.1063/5.0215869",
        },
    ),
    Citation(
        "autocorrelation",
        "article",
        "sampling errors",
        {
            "author": "Wolff, Ulli",
            "title": "Monte {Carlo} errors with less errors",
            "journal": _CPC,
            "volume": "156",
            "pages": "143--153",
            "year": "2004",
            "doi": "10.1016/S0010-4655(03)00467-3",
        },
    ),
    Citation(
        "blocking",
        "article",
        "sampling errors",
        {
            "author": "Flyvbjerg, H. and Petersen, H. G.",
            "title": "Error estimates on averages of correlated data",
            "journal": _JCP,
            "volume": "91",
            "pages": "461--466",
            "year": "1989",
            "doi": "10.1063/1.457480",
        },
    ),
    Citation(
        "mbar",
        "article",
        "reweighting",
        {
            "author": "Shirts, Michael R. and Chodera, John D.",
            "title": "Statistically optimal analysis of samples from multiple equilibrium states",
            "journal": _JCP,
            "volume": "129",
            "pages": "124105",
            "year": "2008",
            "doi": "10.1063/1.2978177",
        },
    ),
)
